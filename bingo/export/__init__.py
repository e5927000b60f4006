"""Backbones in the formats of other software."""

STAGE_VERSION = 1
