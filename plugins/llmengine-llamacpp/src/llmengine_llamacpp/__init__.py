"""llmengine plugin: GGUF models on llama.cpp, on CPU or GPU, in a child process."""
