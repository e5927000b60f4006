from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bingo.data.images import open_images
from bingo.evaluation import finetune as module
from bingo.evaluation.finetune import evaluate_finetune, finetune
from bingo.evaluation.subsets import stratified_rows
from bingo.study.protocols import PROTOCOLS, TRANSFER_PROTOCOLS
from bingo.views.recipes import RECIPES
from tests.training.processes import run_in_processes

from .conftest import CPU

SEMI = PROTOCOLS["semi-10"]


class Tiny(nn.Module):
    """A network with batch norm, and dropout on request."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.dim = 6
        self.conv, self.norm, self.dropout = nn.Conv2d(3, 6, 5, stride=3), nn.BatchNorm2d(6), nn.Dropout(dropout)
        self.eval().requires_grad_(False)

    def forward(self, images):
        return self.dropout(self.norm(self.conv(images)).relu().mean((2, 3)))


@pytest.fixture
def data_of(probe):
    """Batches of so many training images, and these images' labels."""

    def make(count, batch_size=8):
        one = probe(seed=3)
        images = open_images(one.train.listing.select(np.arange(count)))
        data = one.training_batches(images, RECIPES["crop-flip"], batch_size, drop_last=False)
        return data, torch.from_numpy(images.listing.label)

    return make


def train_by_hand(backbone, data, labels, rates):
    """Train by SGD with momentum 0.9, written out; ``rates`` are those of backbone and classifier in each epoch."""
    head_weight = torch.empty(10, backbone.dim).normal_(std=0.01, generator=torch.Generator().manual_seed(3))
    head = [head_weight.requires_grad_(), torch.zeros(10, requires_grad=True)]
    body = [parameter.requires_grad_() for parameter in backbone.parameters()]
    velocity = [torch.zeros_like(parameter) for parameter in body + head]
    backbone.train()
    for epoch, (body_lr, head_lr) in enumerate(rates):
        for step in range(data.steps):
            batch = data[epoch, step]
            images = data.render(batch.views, CPU)["image"]
            logits = backbone(images) @ head[0].T + head[1]
            loss = -logits.log_softmax(1)[torch.arange(len(images)), labels[batch.rows["anchor"]]].mean()
            gradients = torch.autograd.grad(loss, body + head)
            with torch.no_grad():
                for i, (parameter, gradient) in enumerate(zip(body + head, gradients, strict=True)):
                    velocity[i] = 0.9 * velocity[i] + gradient
                    parameter -= (body_lr if i < len(body) else head_lr) * velocity[i]
    return head


# One step of one batch; and the whole schedule, in batches of 8, 8 and 3 images.
@pytest.mark.parametrize(
    ("count", "factors", "tolerance"), [(8, [1.0], 1e-6), (19, [1.0] * 12 + [0.2] * 4 + [0.04] * 4, 1e-4)]
)
def test_training_is_sgd_with_a_rate_each_for_backbone_and_classifier(count, factors, tolerance, data_of):
    data, labels = data_of(count)
    expected, network = Tiny(), Tiny()
    head = train_by_hand(expected, data, labels, [(0.01 * factor, 0.2 * factor) for factor in factors])
    found = finetune(replace(SEMI, epochs=len(factors)), network, data, labels, 10, CPU, 0)
    assert found[0] is network
    assert not any(part.training for part in found.modules())
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, atol=tolerance, rtol=tolerance, msg=name)
        assert name == "conv.bias" or (Tiny().state_dict()[name] != value).any()
    for value, wanted in zip(found[1].parameters(), head, strict=True):
        torch.testing.assert_close(value.detach(), wanted.detach(), atol=tolerance, rtol=tolerance)
    assert head[0].abs().max() > 0.02  # more than its initial 0.01
    if len(factors) > 1:  # another schedule would have been noticed
        other = train_by_hand(Tiny(), data, labels, [(0.01, 0.2)] * len(factors))
        assert (found[1].weight - other[0]).abs().max() > 1e-2


def test_the_same_seed_gives_the_same_network_wherever_the_global_generator_is(data_of):
    data, labels = data_of(16)
    found = []
    for generator, data.seed in ((1, 3), (2, 3), (2, 4)):
        network = Tiny(dropout=0.5)
        torch.manual_seed(generator)
        found.append(finetune(replace(SEMI, epochs=3), network, data, labels, 10, CPU, 0).state_dict())
    first, second, other = found
    assert all(torch.equal(first[name], value) for name, value in second.items())
    assert all((other[name] != value).any() for name, value in first.items() if name.endswith("weight"))


@pytest.fixture
def seen(monkeypatch):
    """What the protocol hands to the training, which is left out."""
    calls = {}

    def train(protocol, backbone, data, labels, classes, device, workers):
        calls.update(data=data, labels=labels, classes=classes)
        return nn.Sequential(backbone, nn.Linear(backbone.dim, classes)).eval()

    monkeypatch.setattr(module, "finetune", train)
    return calls


@pytest.mark.parametrize(
    ("protocol", "share"), [(PROTOCOLS["semi-1"], 0.01), (SEMI, 0.1), (TRANSFER_PROTOCOLS["finetune"], 1.0)]
)
def test_each_class_gives_its_share_of_labels_and_at_least_one(protocol, share, probe, seen):
    one = probe(backbone=Tiny(), seed=4)
    found = evaluate_finetune(protocol, one)
    listing, rows = one.train.listing, stratified_rows(one.train.listing.label, share, 1, 4)
    assert found.facts == {"labels": len(rows)}
    np.testing.assert_array_equal(seen["data"].images.listing.index, listing.index[rows])
    np.testing.assert_array_equal(seen["labels"], listing.label[rows])
    assert (seen["data"].recipe, seen["data"].seed, seen["classes"]) == (RECIPES["crop-flip"], 4, 10)


@pytest.mark.parametrize(("batch_size", "steps"), [(256, 1), (10, 1), (9, 1), (8, 2), (3, 3), (4, 3)])
def test_a_single_image_in_the_last_batch_is_left_out_and_several_are_not(batch_size, steps, probe, seen):
    evaluate_finetune(replace(PROTOCOLS["semi-1"], batch_size=batch_size), probe(backbone=Tiny()))
    assert len(seen["labels"]) == 10
    assert seen["data"].steps == steps


def test_accuracy_is_that_of_the_trained_network_on_bilinear_centre_views(probe, backbone, features, monkeypatch):
    scores, _ = features("val")
    monkeypatch.setattr(module, "finetune", lambda *_: backbone)  # its features are then the scores
    # There are more features than classes; the labels are set to places in their order.
    one = probe()
    one.val.listing.label[:] = scores.argmax(1)
    assert evaluate_finetune(SEMI, one).metrics == {"top1": 100.0, "top5": 100.0}
    one.val.listing.label[:] = scores.argsort(1, descending=True)[:, 4]
    assert evaluate_finetune(SEMI, one).metrics == {"top1": 0.0, "top5": 100.0}


def test_two_processes_end_with_the_same_network(probe):
    def state():
        one = probe(seed=3)
        images = open_images(one.train.listing.select(np.arange(24)))
        data = one.training_batches(images, RECIPES["crop-flip"], 8, drop_last=True)
        labels = torch.from_numpy(images.listing.label)
        return finetune(replace(SEMI, epochs=2), Tiny(), data, labels, 10, CPU, 0).state_dict()

    first, second = run_in_processes(2, state)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
