"""Projection heads."""

from torch import nn


def mlp_head(features: int, hidden: int, dim: int) -> nn.Sequential:
    """Return Linear, ReLU, Linear: (B, features) to (B, dim).

    Args:
        features: width of the backbone's output.
        hidden: width between the two layers.
        dim: width of the embedding.
    """
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))
