"""Writing: checkpoints of TensorFlow, and other files out of them."""
