"""What this plugin registers with llmengine."""
