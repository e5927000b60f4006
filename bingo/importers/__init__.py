"""Weights that other projects publish, read so that they can serve as a frozen teacher."""
