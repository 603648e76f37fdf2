"""Laws of storages."""
