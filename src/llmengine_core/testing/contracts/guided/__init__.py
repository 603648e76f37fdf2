"""Laws of guided decoders."""
