"""Augmented views of images, as pure functions of seed, image index, epoch and view."""
