"""The figures stage: what a person looks at to judge a study."""

STAGE_VERSION = 2
