"""Laws of whole compositions."""
