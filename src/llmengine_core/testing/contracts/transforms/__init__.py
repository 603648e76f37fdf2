"""Laws of transforms."""
