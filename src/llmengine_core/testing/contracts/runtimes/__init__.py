"""Laws of runtimes."""
