"""llmengine plugin: safetensors and PyTorch models on Hugging Face Transformers, in a child process."""
