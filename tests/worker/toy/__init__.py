"""An engine of the standard library: what it generates follows from the prompt alone."""
