"""Detectors on a backbone: images with annotated objects, training, average precision."""
