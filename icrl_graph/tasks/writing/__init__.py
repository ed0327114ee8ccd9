"""Creative writing."""
