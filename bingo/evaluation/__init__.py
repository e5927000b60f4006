"""The evaluation stage: measure a frozen backbone by a named protocol."""

STAGE_VERSION = 3
