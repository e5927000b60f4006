"""Evaluation protocols with fixed names.

The hyper-parameters of a name never change; a variant gets a new name. Every protocol evaluates the network of the last
epoch: no epoch is selected by validation accuracy. Does not import torch: study files are validated with these names.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bingo.study.sections import Interpolation, RecipeName, Schedule, Steps


@dataclass(frozen=True)
class Linear:
    """A linear classifier on a frozen backbone, trained by SGD with momentum 0.9.

    Weights are initialised from N(0, 0.01), biases with zero.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: Schedule | None
    """None for a constant learning rate."""
    source: str
    final_lr: float = 0.0
    """Final learning rate of a cosine schedule."""
    efficientnet_lr: float | None = None
    """Replaces `lr` for EfficientNets; `final_lr` is scaled accordingly."""
    views: RecipeName | None = None
    """Augmentation recipe for training; None for the centre crop, whose features are computed once."""
    standardise: bool = False
    """Standardise each feature to zero mean and unit variance over the training set."""
    interpolation: Interpolation = "bilinear"
    """Interpolation used to resize views."""
    whole: bool = False
    """Resize the shorter side to the input size, so that the centre crop spans it; ignores `resize`."""


@dataclass(frozen=True)
class LinearSweep:
    """Linear classifiers for several learning rates, trained in parallel on features that are computed once.

    Features are standardised over the images used for training. The learning rate is selected by top-1 accuracy on a
    held-out part of the *training* images, which is never trained on. The selected classifier is evaluated once on the
    validation images.
    """

    epochs: int
    batch_size: int
    lrs: tuple[float, ...]
    held_out: float
    """Fraction of each class that is held out."""
    source: str


@dataclass(frozen=True)
class Knn:
    """Vote of the ``k`` nearest training images by cosine similarity.

    Without a temperature, every image has one vote, and the larger summed similarity decides ties. With a temperature,
    votes are weighted by exp(similarity / temperature).
    """

    k: int
    source: str
    temperature: float | None = None
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class Finetune:
    """Fine-tuning of the whole network by SGD with momentum 0.9, without weight decay, on crops and flips."""

    labels: float
    """Fraction of each class whose labels are used; at least one image per class."""
    epochs: int
    batch_size: int
    backbone_lr: float
    head_lr: float
    schedule: Steps
    source: str


@dataclass(frozen=True)
class Detection:
    """Faster R-CNN or Mask R-CNN with a feature pyramid on the backbone; the whole network is trained.

    Training uses SGD with momentum 0.9. Batch norm in backbone and pyramid uses the statistics of the whole batch, like
    SyncBN in MoCo's transfer. The learning rate increases linearly over the first `warmup_steps` steps.
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
    """Images are resized to `shorter_side`, or less so that the longer side is at most this."""
    anchors: tuple[int, ...]
    """Anchor side on each of the five pyramid levels, in pixels of the resized image."""
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
    "0.2 for the classifier, x0.2 at 12 and 16; accuracy of the last epoch (SwAV: of the best epoch)",
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
    source="mask-rcnn for few and small images: shorter side 128, anchors of 8 to 128, batch 8",
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
        "ResNets, because there is no script for them; accuracy of the last epoch (haohang96/bingo: of the best epoch)",
    ),
    "linear-moco-small": replace(
        _MOCO,
        lr=0.1,
        views=None,
        standardise=True,
        source="linear-moco for small datasets: standardised features of the centre view, lr 0.1 instead of 30",
    ),
    "linear-cached": LinearSweep(
        epochs=100,
        batch_size=256,
        lrs=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        held_out=0.1,
        source="this project: standardised features of the centre view, cosine to 0, best of eight learning rates on a "
        "held-out 10 % of the training images",
    ),
    "knn-1": Knn(k=1, source="CompRess (UMBCvision/CompRess): nearest neighbour"),
    "knn-10": Knn(k=10, source="BINGO (Xu et al. 2022): k = 10"),
    "knn-20": Knn(k=20, source="solo-learn: k = 20"),
    **{
        f"knn-dino-{k}": Knn(
            k=k,
            temperature=0.07,
            interpolation="bicubic",
            source=f"DINO (facebookresearch/dino), eval_knn.py: k = {k}, votes weighted by exp(cos / 0.07), bicubic",
        )
        for k in (10, 20, 100, 200)
    },
    "semi-1": replace(
        _SEMI,
        labels=0.01,
        backbone_lr=0.02,
        head_lr=5.0,
        source="SwAV (facebookresearch/swav), README: semi-10 with 1 % of the labels, lr 0.02 for the backbone and 5 "
        "for the classifier; accuracy of the last epoch (SwAV: of the best epoch)",
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
        _SEMI, labels=1.0, source="this project: semi-10 with all labels, as there is no published protocol"
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
    """Return the dataset of an evaluation, empty for the study's own images, and its protocol.

    Args:
        name: `knn-10`, or `cifar10-linear` for a target `cifar10`.
        targets: names of transfer datasets.
    """
    if name in PROTOCOLS:
        return "", name
    matches = [target for target in targets if name.startswith(f"{target}-")]
    target = max(matches, key=len, default="")
    return target, name.removeprefix(f"{target}-") if target else name


def headline_metric(evaluation: str) -> str:
    """Return the main metric of an evaluation."""
    detects = any(evaluation.endswith(f"-{protocol}") for protocol in DETECTION_PROTOCOLS)
    return "box_ap" if detects else "top1"


def published_name(evaluation: str) -> str:
    """Return the protocol name that published numbers of an evaluation use.

    It is `linear` for all linear probes on random views; each paper has its own hyper-parameters for them.
    """
    protocol = PROTOCOLS.get(evaluation)
    return "linear" if isinstance(protocol, Linear) and protocol.views is not None else evaluation
