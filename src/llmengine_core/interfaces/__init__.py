"""What plugins implement; each docstring is the contract."""
