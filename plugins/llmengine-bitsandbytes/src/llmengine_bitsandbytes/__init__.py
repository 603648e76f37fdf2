"""llmengine plugin: weights in 8 or 4 bits as they are loaded, by bitsandbytes."""
