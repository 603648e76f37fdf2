"""llmengine plugin: checks, translates and verifies guided decoding constraints with llguidance."""
