"""Artifacts that stages exchange: written atomically, with provenance, and checked when they are read."""
