"""llmengine plugin: metadata in one SQLite file, safe with several processes."""
