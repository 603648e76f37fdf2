"""llmengine plugin: weights from the Hugging Face Hub, and the base models known by name."""
