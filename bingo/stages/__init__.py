"""The stages of the pipeline, one module each, with the names of the workflow's rules."""
