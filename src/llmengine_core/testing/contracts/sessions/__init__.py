"""Laws of whatever generates."""
