"""The core of llmengine: contracts, decisions, and what carries them out. Engines are plugins."""
