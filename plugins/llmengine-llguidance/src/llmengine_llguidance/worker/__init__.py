"""What runs beside a model's logits, under the engine environment's interpreter."""
