"""The teacher stage: pretrain a large backbone with MoCo-v2."""

STAGE_VERSION = 1
