"""llmengine plugin: objects in folders of the local disk."""
