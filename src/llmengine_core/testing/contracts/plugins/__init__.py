"""Laws of plugins as such."""
