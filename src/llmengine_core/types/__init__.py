"""Frozen data that crosses the core's borders: requests, chunks, specs, plans, declarations."""
