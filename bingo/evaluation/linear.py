"""Linear classification of frozen features."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bingo.errors import BingoError
from bingo.evaluation.probe import Measurement, Probe
from bingo.models.backbone import feature_width
from bingo.philox import Stream, permutation
from bingo.progress import Progress
from bingo.study.protocols import Linear
from bingo.training.distributed import gather_rows, is_first
from bingo.training.metrics import accuracy
from bingo.training.schedule import learning_rate
from bingo.views.recipes import RECIPES, Recipe

FeatureBatches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
_MOMENTUM = 0.9


@dataclass(frozen=True)
class LinearHeads:
    """H linear classifiers on the same features."""

    weight: Tensor
    """(H, C, D) float32."""
    bias: Tensor
    """(H, C) float32."""

    def __call__(self, features: Tensor) -> Tensor:
        """Return the logits (H, C, B) of ``features`` (B, D)."""
        # One matrix product for all heads. With images last, the softmax over classes is 6 times faster on a CPU.
        logits = torch.addmm(self.bias.view(-1, 1), self.weight.flatten(0, 1), features.T)  # (H C, B)
        return logits.unflatten(0, self.bias.shape)

    def pick(self, head: int) -> "LinearHeads":
        """Return one of the classifiers."""
        return LinearHeads(self.weight[head : head + 1], self.bias[head : head + 1])


def evaluate_linear(protocol: Linear, probe: Probe) -> Measurement:
    """Train a linear classifier on the training images, and classify the validation images."""
    val = probe.val_features(protocol.interpolation, protocol.whole)
    recipe = training_views(protocol)
    if recipe is not None:
        batches = _augmented_batches(protocol, recipe, probe)
    else:
        train = probe.train_features(protocol.interpolation, protocol.whole)
        if not is_first():
            return Measurement({})
        if protocol.standardise:
            standardise = standardiser(train)
            train, val = standardise(train), standardise(val)
        batches = cached_batches(
            train.to(probe.device), probe.train_labels.to(probe.device), protocol.batch_size, probe.seed
        )
    heads = train_linear(
        batches,
        feature_width(probe.backbone),
        probe.classes,
        probe.seed,
        lambda epoch: [linear_learning_rate(protocol, probe.architecture, epoch)],
        protocol.epochs,
        protocol.weight_decay,
        probe.device,
    )
    return Measurement(linear_accuracy(heads, val, probe.val_labels) if is_first() else {})


def training_views(protocol: Linear) -> Recipe | None:
    """Return the augmentation recipe for training; None for centre crops."""
    return None if protocol.views is None else replace(RECIPES[protocol.views], interpolation=protocol.interpolation)


def linear_learning_rate(protocol: Linear, architecture: str, epoch: int) -> float:
    """Return the learning rate of ``epoch`` (from 0) for an architecture."""
    lr, final = protocol.lr, protocol.final_lr
    if protocol.efficientnet_lr is not None and "efficientnet" in architecture:
        lr, final = protocol.efficientnet_lr, final * protocol.efficientnet_lr / lr
    if protocol.schedule is None:
        return lr
    return final + learning_rate(protocol.schedule, lr - final, epoch, protocol.epochs)


def _augmented_batches(protocol: Linear, recipe: Recipe, probe: Probe) -> FeatureBatches:
    """Return a function from epoch to batches of features of augmented images. Call it for the epochs in order.

    Several processes share the forward pass, and each gets the complete batch, so that all train the same classifier.
    """
    data = probe.training_batches(probe.train, recipe, protocol.batch_size, drop_last=False)
    stream = data.batches(0, protocol.epochs, probe.workers)

    def batches(_: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(data.steps):
            batch = next(stream)
            with torch.no_grad():
                features = probe.backbone(data.render(batch.views, probe.device)["image"])
            labels = probe.train_labels[torch.from_numpy(batch.rows["anchor"])].to(probe.device)
            yield gather_rows(features), gather_rows(labels)

    return batches


def cached_batches(features: Tensor, labels: Tensor, batch_size: int, seed: int) -> FeatureBatches:
    """Return a function from epoch to batches of fixed ``features`` (N, D) and ``labels`` (N,), in random order."""

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.from_numpy(permutation(seed, Stream.ORDER, epoch, len(features))).to(features.device)
        for rows in order.split(batch_size):
            yield features.index_select(0, rows), labels.index_select(0, rows)

    return batches


def train_linear(
    batches: FeatureBatches,
    dim: int,
    classes: int,
    seed: int,
    rates: Callable[[int], Sequence[float]],
    epochs: int,
    weight_decay: float,
    device: torch.device,
) -> LinearHeads:
    """Train H independent linear classifiers at once.

    All start from the same N(0, 0.01) weights and zero bias, and use torch's SGD with momentum 0.9.

    Args:
        batches: maps an epoch to batches of features (B, D) and labels (B,) on ``device``.
        dim: width of the features D.
        classes: number of classes C.
        seed: seed of the initial weights.
        rates: maps an epoch to the learning rate of each of the H classifiers.
        epochs: number of epochs.
        weight_decay: weight decay of weights and biases.
        device: device to train on.
    """
    heads = len(rates(0))
    generator = torch.Generator().manual_seed(seed)
    initial = torch.empty(classes, dim).normal_(std=0.01, generator=generator)  # (C, D)
    classifiers = LinearHeads(initial.repeat(heads, 1, 1).to(device), torch.zeros(heads, classes, device=device))
    parameters = classifiers.weight.view(-1, dim), classifiers.bias.view(-1)  # (H C, D), (H C,)
    minus_one = torch.full((), -1.0, device=device)
    weight_velocity, bias_velocity = (torch.zeros_like(parameter) for parameter in parameters)
    with Progress("linear classifier", epochs, "epochs") as progress, torch.no_grad():
        for epoch in range(epochs):
            lr = torch.tensor(rates(epoch), device=device).repeat_interleave(classes)  # (H C,)
            for features, labels in batches(epoch):
                # Explicit gradient: autograd and an optimizer take twice as long for such a small network.
                grad = classifiers(features).softmax(1)  # (H, C, B): B times the logits' gradient is softmax - one-hot
                grad.scatter_add_(1, labels.expand(heads, 1, -1), minus_one.expand(heads, 1, len(labels)))
                grad, scale = grad.flatten(0, 1), 1 / len(features)  # (H C, B)
                weight_velocity.addmm_(grad, features, beta=_MOMENTUM, alpha=scale)
                bias_velocity.mul_(_MOMENTUM).add_(grad.sum(1), alpha=scale)
                for parameter, velocity in zip(parameters, (weight_velocity, bias_velocity), strict=True):
                    if weight_decay:
                        velocity.add_(parameter, alpha=weight_decay)
                    parameter.addcmul_(lr.view(-1, *[1] * (parameter.ndim - 1)), velocity, value=-1)
            progress.advance(1)
    return classifiers


def linear_accuracy(heads: LinearHeads, features: Tensor, labels: Tensor) -> dict[str, float]:
    """Return top-1 and top-5 accuracy of a single classifier on ``features`` (N, D) and ``labels`` (N,).

    Raises:
        BingoError: a weight is not finite.
    """
    if not heads.weight.isfinite().all():
        raise BingoError("evaluations: the linear classifier diverged; its features are far too large")
    return accuracy(heads(features.to(heads.weight.device))[0].T.cpu(), labels)


def standardiser(features: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function that scales each column of ``features`` (N, D) to zero mean and unit variance.

    A constant column is only shifted.
    """
    mean, std = features.mean(0), features.std(0)  # (D,)
    # Not std > 0, because the rounded mean of a constant column can differ from its value.
    varies = (features != features[0]).any(0)
    mean = torch.where(varies, mean, features[0])
    scale = torch.where(varies, std, torch.ones_like(std))
    return lambda values: (values - mean) / scale
