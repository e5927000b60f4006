"""The data stage: list a dataset once, so that every later stage means the same image by the same index."""

STAGE_VERSION = 2
PACK_VERSION = 1
