"""Writing TensorFlow checkpoints, and converting checkpoints to other formats."""
