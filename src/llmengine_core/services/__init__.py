"""What an engine does for its callers, one module for each kind of thing."""
