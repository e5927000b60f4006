"""The embeddings stage: a teacher's features of every training image, in the order of the listing."""

STAGE_VERSION = 2
