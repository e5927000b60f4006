"""Backbones in the formats of other software."""
