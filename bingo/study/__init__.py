"""The study file: typed schema, the job of each stage, and the plan of files. Does not import torch."""
