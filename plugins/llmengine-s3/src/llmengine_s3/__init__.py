"""llmengine plugin: objects in S3 and whatever speaks its protocol."""
