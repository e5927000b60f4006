"""Random views of images as pure functions of (seed, index, epoch, view)."""
