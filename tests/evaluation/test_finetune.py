from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bingo.data.images import open_images
from bingo.errors import BingoError
from bingo.evaluation import finetune as module
from bingo.evaluation.finetune import evaluate_finetune, finetune
from bingo.study.protocols import PROTOCOLS, TRANSFER_PROTOCOLS
from bingo.views.recipes import RECIPES

CPU = torch.device("cpu")
SEMI = PROTOCOLS["semi-10"]


class Tiny(nn.Module):
    """A network with batch norm, and dropout where asked for."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.dim = 6
        self.conv, self.norm, self.dropout = nn.Conv2d(3, 6, 5, stride=3), nn.BatchNorm2d(6), nn.Dropout(dropout)

    def forward(self, images):
        return self.dropout(self.norm(self.conv(images)).relu().mean((2, 3)))


@pytest.fixture
def tiny():
    def make(**options):
        torch.manual_seed(0)
        return Tiny(**options).eval().requires_grad_(False)

    return make


@pytest.fixture
def data_of(probe):
    """Batches of so many training images, and these images' labels."""

    def make(count, batch_size=8):
        one = probe(None, seed=3)
        images = open_images(one.train.listing.select(np.arange(count)))
        data = one.training_batches(images, RECIPES["crop-flip"], batch_size, drop_last=False)
        return data, torch.from_numpy(images.listing.label)

    return make


def literally(backbone, data, labels, classes, rates):
    """SGD with momentum 0.9 and two learning rates, written out; ``rates`` are those of each epoch."""
    head_weight = torch.empty(classes, backbone.dim).normal_(std=0.01, generator=torch.Generator().manual_seed(3))
    head = [head_weight.requires_grad_(), torch.zeros(classes, requires_grad=True)]
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


def require_equal(found, backbone, head, tolerance):
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(found[0].state_dict()[name], value, atol=tolerance, rtol=tolerance, msg=name)
    for value, expected in zip(found[1].parameters(), head, strict=True):
        torch.testing.assert_close(value.detach(), expected.detach(), atol=tolerance, rtol=tolerance)


def test_one_step_is_that_of_sgd_with_a_rate_each_for_backbone_and_classifier(tiny, data_of):
    data, labels = data_of(8)
    expected = tiny()
    head = literally(expected, data, labels, 10, [(0.01, 0.2)])
    network = tiny()
    before = deepcopy(network.state_dict())
    found = finetune(replace(SEMI, epochs=1), network, data, labels, 10, CPU, 0)
    require_equal(found, expected, head, 1e-6)
    assert found[0] is network
    # Weights and statistics have changed, and the classifier by more than its initial 0.01.
    assert all((before[name] != value).any() for name, value in network.state_dict().items() if name != "conv.bias")
    assert head[0].abs().max() > 0.02


def test_a_whole_training_follows_the_schedule(tiny, data_of):
    data, labels = data_of(19)
    assert data.steps == 3  # the last one with three images
    factors = [1.0] * 12 + [0.2] * 4 + [0.04] * 4
    expected = tiny()
    head = literally(expected, data, labels, 10, [(0.01 * factor, 0.2 * factor) for factor in factors])
    found = finetune(SEMI, tiny(), data, labels, 10, CPU, 0)
    require_equal(found, expected, head, 1e-4)
    # Another schedule would have been noticed.
    other = tiny()
    other_head = literally(other, data, labels, 10, [(0.01 * factor, 0.2 * factor) for factor in [1.0] * 20])
    assert (found[1].weight - other_head[0]).abs().max() > 1e-2


def test_the_network_is_returned_for_evaluation_and_learns_its_images(tiny, data_of):
    data, labels = data_of(16)
    network = finetune(replace(SEMI, backbone_lr=0.1), tiny(), data, labels, 10, CPU, 0)
    assert not any(part.training for part in network.modules())
    view = data[0, 0]
    images, truth = data.render(view.views, CPU)["image"], labels[view.rows["anchor"]]
    with torch.no_grad():
        assert F.cross_entropy(network(images), truth) < 0.8 * np.log(10)


def test_the_same_seed_gives_the_same_network_wherever_the_global_generator_is(tiny, data_of):
    data, labels = data_of(16)
    found = []
    for seed in (1, 2):
        network = tiny(dropout=0.5)
        torch.manual_seed(seed)
        found.append(finetune(replace(SEMI, epochs=3), network, data, labels, 10, CPU, 0).state_dict())
    assert all(torch.equal(found[0][name], value) for name, value in found[1].items())
    data.seed = 4
    other = finetune(replace(SEMI, epochs=3), tiny(dropout=0.5), data, labels, 10, CPU, 0).state_dict()
    assert all((other[name] != value).any() for name, value in found[0].items() if name.endswith("weight"))


def test_a_training_that_diverges_is_refused(tiny, data_of):
    data, labels = data_of(16)
    network = tiny()
    network.norm.weight.data.fill_(1e38)
    with pytest.raises(BingoError, match=r"fine-tuning: the loss is not finite at step 1 \(epoch 1, step 1\); "):
        finetune(SEMI, network, data, labels, 10, CPU, 0)


@pytest.fixture
def seen(monkeypatch):
    """What the protocol hands to the training, which is left out."""
    calls = {}

    def train(protocol, backbone, data, labels, classes, device, workers):
        calls.update(data=data, labels=labels, classes=classes, backbone=backbone)
        return nn.Sequential(backbone, nn.Linear(backbone.dim, classes)).eval()

    monkeypatch.setattr(module, "finetune", train)
    return calls


@pytest.mark.parametrize(
    ("protocol", "share"), [(PROTOCOLS["semi-1"], 0.01), (SEMI, 0.1), (TRANSFER_PROTOCOLS["finetune"], 1.0)]
)
def test_each_class_gives_its_share_of_labels_and_at_least_one(protocol, share, probe, tiny, seen):
    one = probe(tiny())
    found = evaluate_finetune(protocol, one)
    counts = np.bincount(one.train.listing.label, minlength=10)
    drawn = np.bincount(seen["labels"], minlength=10)
    np.testing.assert_array_equal(drawn, np.maximum(1, np.rint(share * counts)))
    assert found.facts == {"labels": drawn.sum()}
    listing = seen["data"].images.listing
    np.testing.assert_array_equal(listing.label, seen["labels"])
    of_all = one.train.listing.index.tolist()
    rows = [of_all.index(number) for number in listing.index]
    np.testing.assert_array_equal(one.train.listing.label[rows], seen["labels"])
    assert (seen["data"].recipe, seen["data"].seed, seen["classes"]) == (RECIPES["crop-flip"], 0, 10)


def test_another_seed_uses_other_labels(probe, tiny, seen):
    drawn = []
    for seed in (0, 1, 0):
        evaluate_finetune(SEMI, probe(tiny(), seed=seed))
        drawn.append(seen["data"].images.listing.index.tolist())
    assert drawn[0] == drawn[2]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(("batch_size", "steps"), [(256, 1), (10, 1), (9, 1), (8, 2), (5, 2), (3, 3), (4, 3)])
def test_an_image_alone_in_the_last_batch_is_left_out_and_several_are_not(batch_size, steps, probe, tiny, seen):
    evaluate_finetune(replace(PROTOCOLS["semi-1"], batch_size=batch_size), probe(tiny()))
    assert len(seen["labels"]) == 10
    assert seen["data"].steps == steps


def test_accuracy_is_that_of_the_trained_network_on_bilinear_centre_views(probe, backbone, features, monkeypatch):
    scores, _ = features("val")
    monkeypatch.setattr(module, "finetune", lambda *_: backbone)  # its features are then the scores
    # With the most active feature as the truth all images are right; there are more features than classes.
    one = probe(backbone)
    one.val.listing.label[:] = scores.argmax(1)
    assert evaluate_finetune(SEMI, one).metrics == {"top1": 100.0, "top5": 100.0}
    one.val.listing.label[:] = scores.argsort(1, descending=True)[:, 4]
    assert evaluate_finetune(SEMI, one).metrics == {"top1": 0.0, "top5": 100.0}
