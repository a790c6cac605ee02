"""TensorFlow inside torch.autograd."""
