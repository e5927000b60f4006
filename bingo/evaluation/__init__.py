"""Protocols, and what measures them."""
