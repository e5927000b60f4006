"""The teacher stage: pretrain a large backbone with MoCo-v2, or take over one that somebody has trained."""

STAGE_VERSION = 1
IMPORT_VERSION = 1
