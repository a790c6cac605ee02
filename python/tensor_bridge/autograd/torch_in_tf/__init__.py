"""torch under a GradientTape, in graphs and as Keras layers."""
