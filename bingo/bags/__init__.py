"""Bags of images, and the nearest-neighbour search and clustering that build them."""
