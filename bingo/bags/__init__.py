"""The bags stage: group images by the teacher's features."""

STAGE_VERSION = 2
SHEET_VERSION = 2
