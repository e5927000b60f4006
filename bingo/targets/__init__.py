"""The targets stage: a teacher's outputs for random views of every image, computed once for all students."""

STAGE_VERSION = 1
