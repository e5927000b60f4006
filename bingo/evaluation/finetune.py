"""Fine-tuning: train a whole network with labels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bingo.data.images import open_images
from bingo.errors import BingoError
from bingo.evaluation.probe import Measurement, Probe
from bingo.evaluation.subsets import listed_rows, stratified_rows
from bingo.models.backbone import feature_width
from bingo.study.protocols import Finetune
from bingo.training.batches import Batch, TrainingBatches
from bingo.training.distributed import is_first, processes, share_buffers
from bingo.training.loop import Task, train
from bingo.training.metrics import accuracy
from bingo.training.schedule import learning_rate
from bingo.views.recipes import RECIPES


def evaluate_finetune(protocol: Finetune, probe: Probe) -> Measurement:
    """Fine-tune the network, in place, on a labelled subset, and classify the validation images.

    Drops the last batch of an epoch if it has fewer than two images per process.
    """
    listing = probe.train.listing
    if probe.label_list is not None:
        rows = listed_rows(listing, probe.label_list)
    else:
        rows = stratified_rows(listing.label, protocol.labels, least=1, seed=probe.seed)
    minimum = 2 * processes()  # batch statistics need two images per process
    if len(rows) < minimum:
        raise BingoError(
            f"evaluations: fine-tuning {probe.name} needs {minimum} labelled images, but there are {len(rows)}; "
            "add labels, or remove the protocol"
        )
    images = open_images(listing.select(rows))
    drop_last = 0 < len(rows) % protocol.batch_size < minimum and len(rows) > protocol.batch_size
    data = probe.training_batches(images, RECIPES["crop-flip"], protocol.batch_size, drop_last)
    labels = torch.from_numpy(images.listing.label)
    network = finetune(protocol, probe.backbone, data, labels, probe.classes, probe.device, probe.workers)
    scores = probe.outputs(network, probe.val, "validation", "bilinear")
    return Measurement(accuracy(scores, probe.val_labels) if is_first() else {}, {"labels": len(rows)})


class FinetuneTask(Task):
    """Trains a backbone and a linear classifier with separate learning rates."""

    data: TrainingBatches
    remedy = "the network's weights are far too large"

    def __init__(
        self,
        network: nn.Sequential,
        data: TrainingBatches,
        labels: Tensor,
        protocol: Finetune,
        device: torch.device,
    ) -> None:
        """Train all parameters of ``network``, a backbone and a classifier on ``device``."""
        self.module, self.data, self.labels, self.protocol, self.device = network, data, labels, protocol, device
        self.epochs = protocol.epochs
        backbone, head = network
        self.optimizer = torch.optim.SGD([{"params": part.parameters()} for part in (backbone, head)], momentum=0.9)

    def learning_rates(self, epoch: int, step: int) -> list[float]:  # noqa: ARG002
        """Return the learning rates of backbone and classifier, constant within an epoch."""
        lrs = (self.protocol.backbone_lr, self.protocol.head_lr)
        return [learning_rate(self.protocol.schedule, lr, epoch, self.epochs) for lr in lrs]

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        images = self.data.render(batch.views, self.device)["image"]  # (b, 3, S, S)
        labels = self.labels[torch.from_numpy(batch.rows["anchor"])].to(self.device)  # (b,)
        logits = model(images)  # (b, C)
        # Gradients are averaged over processes, whose numbers of images may differ by one.
        weight = len(images) * processes() / self.data.count(batch.step)
        loss = F.cross_entropy(logits, labels) * weight
        return {"loss": loss}


def finetune(
    protocol: Finetune,
    backbone: nn.Module,
    data: TrainingBatches,
    labels: Tensor,
    classes: int,
    device: torch.device,
    workers: int,
) -> nn.Module:
    """Train a backbone, in place, and a linear classifier; return both as one network in eval mode.

    The classifier is initialised with N(0, 0.01) weights and zero bias.

    Args:
        protocol: hyperparameters.
        backbone: pretrained network, on ``device``.
        data: batches with one view, `image`, of each anchor; its seed also seeds the classifier.
        labels: (N,) int64 class of each image of ``data``.
        classes: number of classes C.
        device: device to train on.
        workers: number of loader workers.

    Raises:
        BingoError: the loss or a weight is not finite.
    """
    head = nn.Linear(feature_width(backbone), classes)
    nn.init.normal_(head.weight, std=0.01, generator=torch.Generator().manual_seed(data.seed))
    nn.init.zeros_(head.bias)
    network = nn.Sequential(backbone, head).to(device).requires_grad_(True)
    torch.manual_seed(data.seed)  # for timm models with stochastic depth
    train(FinetuneTask(network, data, labels, protocol, device), None, workers, "fine-tuning")
    share_buffers(network)  # each process has its own running statistics
    return network.eval()
