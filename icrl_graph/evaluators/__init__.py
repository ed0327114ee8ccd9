"""Who gives rewards."""
