"""The detection stage: fine-tune a backbone as part of a detector, and measure that."""

STAGE_VERSION = 2
