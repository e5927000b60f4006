"""Evaluation protocols: frozen names.

The hyper-parameters under a name never change; a variant gets a name of its own. Every protocol measures the network
of the last epoch: none is picked by validation accuracy. Imports no torch: study files are checked against these names.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bingo.study.sections import Interpolation, RecipeName, Schedule, Steps


@dataclass(frozen=True)
class Linear:
    """A linear classifier trained on a frozen backbone by SGD with momentum 0.9.

    It starts from N(0, 0.01) weights and zero bias.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: Schedule | None
    """None keeps the learning rate constant."""
    source: str
    final_lr: float = 0.0
    """Where a cosine schedule ends."""
    efficientnet_lr: float | None = None
    """For EfficientNets, in place of `lr`; `final_lr` is scaled with it."""
    views: RecipeName | None = None
    """Recipe of random views in training; None for the centre view, whose features are computed once."""
    standardise: bool = False
    """Shift and scale each feature to zero mean and unit variance over the training set."""
    interpolation: Interpolation = "bilinear"
    """How views are resized."""
    whole: bool = False
    """Centre views show the whole shorter side, rather than what `resize` leaves of it."""


@dataclass(frozen=True)
class LinearSweep:
    """Linear classifiers for several learning rates, trained side by side on features that are computed once.

    Features are standardised over the images that are trained on. The learning rate is chosen by top-1 on a held-out
    part of the *training* images, which stay held out; validation images are seen once, by the chosen classifier.
    """

    epochs: int
    batch_size: int
    lrs: tuple[float, ...]
    held_out: float
    """Share of each class that is held out."""
    source: str


@dataclass(frozen=True)
class Knn:
    """Vote of the ``k`` training images most similar by cosine.

    Without a temperature each has one vote, and ties go to the larger summed similarity; with one, a vote weighs
    exp(similarity / temperature).
    """

    k: int
    source: str
    temperature: float | None = None
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class Finetune:
    """The whole network trained with labels, by SGD with momentum 0.9 and no weight decay, crops and flips."""

    labels: float
    """Share of each class whose labels are used; at least one image of each."""
    epochs: int
    batch_size: int
    backbone_lr: float
    head_lr: float
    schedule: Steps
    source: str


@dataclass(frozen=True)
class Detection:
    """Faster R-CNN, or Mask R-CNN, with a feature pyramid on the backbone; the whole network is trained.

    SGD with momentum 0.9. Batch-norm, in backbone and pyramid, uses the statistics of the whole batch, as
    SyncBN does in MoCo's transfer. The learning rate rises over the first `warmup_steps`.
    """

    masks: bool
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: Steps
    warmup_steps: int
    shorter_side: int
    longer_side: int
    """Images are resized to the shorter side, unless the longer one exceeds this."""
    anchors: tuple[int, ...]
    """Side of the anchors on each of the five levels of the pyramid, in pixels of the resized image."""
    source: str


Protocol = Linear | LinearSweep | Knn | Finetune | Detection

_MOCO = Linear(
    epochs=100,
    batch_size=256,
    lr=30.0,
    weight_decay=0.0,
    schedule=Steps(milestones=[60, 80], factor=0.1),
    views="crop-flip",
    source="facebookresearch/moco, main_lincls.py: lr 30, 100 epochs, x0.1 at 60 and 80",
)
_SEMI = Finetune(
    labels=0.1,
    epochs=20,
    batch_size=256,
    backbone_lr=0.01,
    head_lr=0.2,
    schedule=Steps(milestones=[12, 16], factor=0.2),
    source="SwAV (facebookresearch/swav), eval_semisup.py: 10 % of the labels, 20 epochs, lr 0.01 for the backbone and "
    "0.2 for the classifier, x0.2 at 12 and 16; the last epoch's accuracy here, the best epoch's there",
)
_MASK_RCNN = Detection(
    masks=True,
    epochs=12,
    batch_size=16,
    lr=0.02,
    weight_decay=1e-4,
    schedule=Steps(milestones=[8, 11], factor=0.1),
    warmup_steps=1000,
    shorter_side=800,
    longer_side=1333,
    anchors=(32, 64, 128, 256, 512),
    source="MoCo's transfer to COCO with the 1x schedule (12 epochs, lr 0.02 for 16 images, x0.1 at 8 and 11), on "
    "torchvision's Mask R-CNN with a feature pyramid; one image scale, and weight decay on all parameters",
)
_DETECTION_SMALL = replace(
    _MASK_RCNN,
    batch_size=8,
    shorter_side=128,
    longer_side=256,
    anchors=(8, 16, 32, 64, 128),
    warmup_steps=20,
    source="mask-rcnn for small images and few of them: shorter side 128, anchors of 8 to 128, batch 8",
)

PROTOCOLS: dict[str, Protocol] = {
    "linear-moco": _MOCO,
    "linear-seed": replace(_MOCO, source="SEED (jacobswan1/SEED): lr 30 for batch 256, 100 epochs, x0.1 at 60 and 80"),
    "linear-bingo": Linear(
        epochs=120,
        batch_size=256,
        lr=30.0,
        final_lr=0.01,
        efficientnet_lr=3.0,
        weight_decay=0.0,
        schedule="cosine",
        views="crop-flip",
        source="haohang96/bingo, scripts: cosine from 30 to 0.01 (EfficientNets 3 to 0.001), 120 epochs; MobileNets as "
        "ResNets, for want of a script; the last epoch's accuracy here, the best epoch's there",
    ),
    "linear-moco-small": replace(
        _MOCO,
        lr=0.1,
        views=None,
        standardise=True,
        source="linear-moco for small data: standardised features of the centre view, so lr 0.1 in place of 30",
    ),
    "linear-cached": LinearSweep(
        epochs=100,
        batch_size=256,
        lrs=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        held_out=0.1,
        source="this project: standardised features of the centre view, cosine to 0, the best of eight learning rates "
        "on a tenth of the training images",
    ),
    "knn-1": Knn(k=1, source="CompRess (UMBCvision/CompRess): nearest neighbour"),
    "knn-10": Knn(k=10, source="BINGO (Xu et al. 2022): k = 10"),
    "knn-20": Knn(k=20, source="solo-learn: k = 20"),
    **{
        f"knn-dino-{k}": Knn(
            k=k,
            temperature=0.07,
            interpolation="bicubic",
            source=f"DINO (facebookresearch/dino), eval_knn.py: k = {k}, votes weigh exp(cos / 0.07), bicubic resizing",
        )
        for k in (10, 20, 100, 200)
    },
    "semi-1": replace(
        _SEMI,
        labels=0.01,
        backbone_lr=0.02,
        head_lr=5.0,
        source="SwAV (facebookresearch/swav), README: as semi-10, with 1 % of the labels, lr 0.02 for the backbone and "
        "5 for the classifier; the last epoch's accuracy here, the best epoch's there",
    ),
    "semi-10": _SEMI,
}

TRANSFER_PROTOCOLS: dict[str, Protocol] = {
    "linear": Linear(
        epochs=200,
        batch_size=256,
        lr=3.0,
        weight_decay=0.0,
        schedule=None,
        views="crop-flip",
        interpolation="bicubic",
        whole=True,
        source="DisCo (Yuting-Gao/DisCo-pytorch), transfer to CIFAR: lr 3, constant, 200 epochs, bicubic resizing "
        "of the whole image to the input size",
    ),
    "finetune": replace(
        _SEMI, labels=1.0, source="this project: semi-10's recipe with all labels, for want of a published one"
    ),
}

DETECTION_PROTOCOLS: dict[str, Detection] = {
    "mask-rcnn": _MASK_RCNN,
    "faster-rcnn": replace(_MASK_RCNN, masks=False, source=_MASK_RCNN.source.replace("Mask", "Faster")),
    "mask-rcnn-small": _DETECTION_SMALL,
    "faster-rcnn-small": replace(
        _DETECTION_SMALL, masks=False, source=_DETECTION_SMALL.source.replace("mask-rcnn", "faster-rcnn")
    ),
}


def split_name(name: str, targets: Iterable[str]) -> tuple[str, str]:
    """Return which set an evaluation is measured on, empty for the study's own images, and its protocol.

    Args:
        name: `knn-10`, or `cifar10-linear` where there is a target `cifar10`.
        targets: names of other sets.
    """
    if name in PROTOCOLS:
        return "", name
    found = [target for target in targets if name.startswith(f"{target}-")]
    target = max(found, key=len, default="")
    return target, name.removeprefix(f"{target}-") if target else name


def headline_metric(evaluation: str) -> str:
    """Return the first thing that an evaluation measures."""
    detects = any(evaluation.endswith(f"-{protocol}") for protocol in DETECTION_PROTOCOLS)
    return "box_ap" if detects else "top1"


def published_name(evaluation: str) -> str:
    """Return the name under which publications give an evaluation's numbers.

    It is `linear` for every linear probe on fresh views; each paper has its own hyper-parameters for that.
    """
    protocol = PROTOCOLS.get(evaluation)
    return "linear" if isinstance(protocol, Linear) and protocol.views is not None else evaluation
