"""Laws of backends: their sessions, and how they are started."""
