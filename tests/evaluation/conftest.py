from dataclasses import replace

import pytest
import torch

from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.evaluation.probe import Probe
from tests.stages.conftest import (  # noqa: F401
    CPU,
    backbone,
    centre_view,
    demo_in_memory,
    features,
    listings,
    make_teacher,
    one_thread,
    shorten,
    teacher,
    write_listings,
)


@pytest.fixture
def probe(listings, backbone, centre_view):  # noqa: F811
    """A probe of the demo's images: its fields that differ -> the probe."""

    def make(**changes):
        train, val = (
            open_images(read_listing(path, split)) for path, split in zip(listings, ("train", "val"), strict=True)
        )
        return replace(Probe("bingo", "resnet10", backbone, train, val, centre_view, 0, CPU, 0), **changes)

    return make


@pytest.fixture(scope="session")
def plain_sgd():
    """Train one classifier by torch's own layer, optimizer and loss -> weight (C, D), bias (C,)."""

    def train(batches, weight, bias, rates, weight_decay):
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        optimizer = torch.optim.SGD(layer.parameters(), lr=1, momentum=0.9, weight_decay=weight_decay)
        for epoch, lr in enumerate(rates):
            optimizer.param_groups[0]["lr"] = lr
            for rows, labels in batches(epoch):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(layer(rows), labels).backward()
                optimizer.step()
        return layer.weight.detach(), layer.bias.detach()

    return train
