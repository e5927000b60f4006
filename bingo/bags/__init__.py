"""The bags stage: group images by the teacher's features."""

STAGE_VERSION = 1
SHEET_VERSION = 2
