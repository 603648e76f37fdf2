"""What runs in the engine's own environment: torch and Transformers, driven step by step."""
