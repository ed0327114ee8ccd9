"""How calls are made, counted, kept and repeated."""
