"""Reading checkpoints: one file a format, and the mapping over all of them."""
