"""From the weights of a checkpoint into a torch module."""
