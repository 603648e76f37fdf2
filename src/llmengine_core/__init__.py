"""The core of llmengine: contracts, decisions and the engine that platforms embed."""
