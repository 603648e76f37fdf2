"""The laws, by the kind of thing that they are about."""
