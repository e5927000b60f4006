"""The student stage: train a small backbone, alone or from a teacher and its bags."""

STAGE_VERSION = 2
