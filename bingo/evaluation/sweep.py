"""Linear probe with the best of several learning rates, selected on held-out training images."""

import torch
from torch import Tensor

from bingo.errors import BingoError
from bingo.evaluation.linear import LinearHeads, cached_batches, linear_accuracy, standardiser, train_linear
from bingo.evaluation.probe import Measurement, Probe
from bingo.evaluation.subsets import stratified_rows
from bingo.study.protocols import LinearSweep
from bingo.training.distributed import is_first
from bingo.training.schedule import learning_rate

_BATCH = 8192


def evaluate_sweep(protocol: LinearSweep, probe: Probe) -> Measurement:
    """Train one linear classifier per learning rate, and classify the validation images with the best one."""
    features, labels = probe.train_features("bilinear"), probe.train_labels
    val = probe.val_features("bilinear")
    if not is_first():
        return Measurement({})
    held_out = torch.zeros(len(features), dtype=torch.bool)
    held_out[stratified_rows(labels.numpy(), protocol.held_out, least=0, seed=probe.seed)] = True
    if not held_out.any():
        raise BingoError(
            f"evaluations: linear-cached holds out {protocol.held_out:.0%} of each class, but no class of the "
            f"{len(labels)} images is large enough; use linear-moco-small"
        )
    standardise = standardiser(features[~held_out])
    heads = train_linear(
        cached_batches(
            standardise(features[~held_out]).to(probe.device),
            labels[~held_out].to(probe.device),
            protocol.batch_size,
            probe.seed,
        ),
        features.shape[1],
        probe.classes,
        probe.seed,
        lambda epoch: [learning_rate("cosine", lr, epoch, protocol.epochs) for lr in protocol.lrs],
        protocol.epochs,
        weight_decay=0.0,
        device=probe.device,
    )
    best = best_head(heads, standardise(features[held_out]), labels[held_out])
    metrics = linear_accuracy(heads.pick(best), standardise(val), probe.val_labels)
    return Measurement(metrics, {"lr": protocol.lrs[best], "held_out": int(held_out.sum())})


def best_head(heads: LinearHeads, features: Tensor, labels: Tensor) -> int:
    """Return the index of the classifier with the best top-1 accuracy on ``features`` (N, D) and ``labels`` (N,).

    The first one wins a tie. A diverged classifier is never selected.

    Raises:
        BingoError: all classifiers diverged.
    """
    correct = torch.zeros(len(heads.weight), dtype=torch.int64)  # (H,)
    finite = torch.ones(len(heads.weight), dtype=torch.bool)  # (H,)
    for batch, targets in zip(features.split(_BATCH), labels.split(_BATCH), strict=True):
        logits = heads(batch.to(heads.weight.device)).cpu()  # (H, C, b)
        correct += (logits.argmax(1) == targets).sum(1)
        finite &= logits.isfinite().all(2).all(1)
    if not finite.any():
        raise BingoError("evaluations: the linear classifiers diverged; the network's features are far too large")
    return int(correct.masked_fill(~finite, -1).argmax())
