"""Bags of images, and the neighbour search they come from."""
