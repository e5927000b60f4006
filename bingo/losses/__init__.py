"""Losses: pure functions, one file each."""
