"""Object detection and instance segmentation with a pretrained backbone."""
