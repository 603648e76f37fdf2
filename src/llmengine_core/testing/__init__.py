"""What helps to test llmengine, plugins for it, and programs that use it."""
