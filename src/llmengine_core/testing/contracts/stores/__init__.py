"""Laws of stores."""
