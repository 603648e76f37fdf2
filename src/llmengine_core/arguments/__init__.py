"""What a caller gave, checked once and turned into the core's types: pure, exact about what is wrong."""
