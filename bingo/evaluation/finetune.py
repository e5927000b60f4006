"""Training of a whole network with labels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bingo.data.images import open_images
from bingo.errors import BingoError
from bingo.evaluation.metrics import accuracy
from bingo.evaluation.probe import Measurement, Probe
from bingo.evaluation.subsets import listed_rows, stratified_rows
from bingo.models.backbone import feature_width
from bingo.progress import Progress
from bingo.study.protocols import Finetune
from bingo.training import distributed
from bingo.training.batches import TrainingBatches
from bingo.training.distributed import is_first, processes
from bingo.training.schedule import learning_rate
from bingo.views.recipes import RECIPES


def evaluate_finetune(protocol: Finetune, probe: Probe) -> Measurement:
    """Train the network, in place, on some labelled images, and classify the validation images.

    An incomplete last batch with fewer than two images per process is left out.
    """
    listing = probe.train.listing
    if probe.label_list is not None:
        rows = listed_rows(listing, probe.label_list)
    else:
        rows = stratified_rows(listing.label, protocol.labels, least=1, seed=probe.seed)
    least = 2 * processes()  # an image alone may have no batch statistics
    if len(rows) < least:
        raise BingoError(
            f"evaluations: fine-tuning of {probe.name} needs {least} labelled images, there are {len(rows)}"
        )
    images = open_images(listing.select(rows))
    drop_last = 0 < len(rows) % protocol.batch_size < least and len(rows) > protocol.batch_size
    data = probe.training_batches(images, RECIPES["crop-flip"], protocol.batch_size, drop_last)
    labels = torch.from_numpy(images.listing.label)
    network = finetune(protocol, probe.backbone, data, labels, probe.classes, probe.device, probe.workers)
    scores = probe.outputs(network, probe.val, "validation", "bilinear")
    return Measurement(accuracy(scores, probe.val_labels) if is_first() else {}, {"labels": len(rows)})


def finetune(
    protocol: Finetune,
    backbone: nn.Module,
    data: TrainingBatches,
    labels: Tensor,
    classes: int,
    device: torch.device,
    workers: int,
) -> nn.Module:
    """Train a backbone, in place, and a linear classifier on it; return both as one network in eval mode.

    The classifier starts from N(0, 0.01) weights and zero bias.

    Args:
        protocol: hyper-parameters.
        backbone: the network to start from, on ``device``.
        data: batches with one view, `image`, of each anchor; its seed is that of the classifier too.
        labels: (N,) int64 class of each image of ``data``.
        classes: number of classes.
        device: where to train.
        workers: loader processes.

    Raises:
        BingoError: the loss is not finite at the end of an epoch.
    """
    head = nn.Linear(feature_width(backbone), classes)
    nn.init.normal_(head.weight, std=0.01, generator=torch.Generator().manual_seed(data.seed))
    nn.init.zeros_(head.bias)
    network = nn.Sequential(backbone, head).to(device)
    network.train().requires_grad_(True)
    optimizer = torch.optim.SGD(
        [
            {"params": backbone.parameters(), "lr": protocol.backbone_lr},
            {"params": head.parameters(), "lr": protocol.head_lr},
        ],
        momentum=0.9,
    )
    model = distributed.with_shared_gradients(network)
    batches = data.batches(0, protocol.epochs, workers)
    torch.manual_seed(data.seed)  # some of timm's networks draw which paths to drop
    with Progress("fine-tuning", protocol.epochs, "epochs") as progress:
        for epoch in range(protocol.epochs):
            for group, lr in zip(optimizer.param_groups, (protocol.backbone_lr, protocol.head_lr), strict=True):
                group["lr"] = learning_rate(protocol.schedule, lr, epoch, protocol.epochs)
            total = torch.zeros((), device=device)
            for step in range(data.steps):
                batch = next(batches)
                images = data.render(batch.views, device)["image"]  # (b, 3, S, S)
                loss = F.cross_entropy(model(images), labels[torch.from_numpy(batch.rows["anchor"])].to(device))
                loss = loss * (len(images) * processes() / data.count(step))  # parts of a batch may differ by an image
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach()
            if not total.isfinite():
                raise BingoError(
                    f"evaluations: fine-tuning diverged in epoch {epoch + 1}; the network's weights are far too large"
                )
            progress.advance(1)
    distributed.share_buffers(network)  # each process has running statistics of its own
    return network.eval()
