"""What a run knows: plain records, and pure functions over them."""
