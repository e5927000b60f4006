"""Evaluation protocols: frozen names.

The hyper-parameters under a name never change; a variant gets a name of its own. Imports no torch: study files
are checked against these names.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """A linear classifier trained on a frozen backbone by SGD with momentum 0.9.

    The classifier starts from N(0, 0.01) weights and zero bias. The learning rate is multiplied by ``decay`` at
    each of ``milestones`` (epochs).
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    milestones: tuple[int, ...]
    decay: float
    augment: bool
    """Random resized crop and flip in training; else the centre view, whose features are computed once."""
    standardise: bool
    """Shift and scale each feature to zero mean and unit variance over the training set."""
    source: str


@dataclass(frozen=True)
class Knn:
    """Majority vote of the ``k`` training images most similar by cosine; ties go to the larger summed similarity."""

    k: int
    source: str


PROTOCOLS: dict[str, Linear | Knn] = {
    "linear-moco": Linear(
        epochs=100,
        batch_size=256,
        lr=30.0,
        weight_decay=0.0,
        milestones=(60, 80),
        decay=0.1,
        augment=True,
        standardise=False,
        source="facebookresearch/moco, main_lincls.py: lr 30, 100 epochs, x0.1 at 60 and 80",
    ),
    "linear-moco-small": Linear(
        epochs=100,
        batch_size=256,
        lr=0.1,
        weight_decay=0.0,
        milestones=(60, 80),
        decay=0.1,
        augment=False,
        standardise=True,
        source="linear-moco for small data: standardised features of the centre view, so lr 0.1 in place of 30",
    ),
    "knn-1": Knn(k=1, source="CompRess (UMBCvision/CompRess): nearest neighbour"),
    "knn-10": Knn(k=10, source="BINGO (Xu et al. 2022): k = 10"),
    "knn-20": Knn(k=20, source="solo-learn: k = 20"),
}
