"""Datasets: list, decode and pack images."""
