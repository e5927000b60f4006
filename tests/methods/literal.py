"""Steps of a method, by the model and written out: separate networks, lists for queues, loops for formulas."""

import copy

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from bingo.models.batch_norm_folding import fold_batch_norm
from bingo.study.schema import Student
from bingo.training.model import TrainingModel
from bingo.training.step import StepInput
from bingo.training.teacher import OnlineTeacher

BATCH, QUEUE, SIDE, LR = 6, 16, 16, 0.5
COMMON = {"backbone": {"architecture": "resnet10", "stem": "small", "width": 1 / 16}, "queue_size": QUEUE}
FLOAT32 = torch.float32

# Every method with settings that differ from their defaults.
METHODS = {
    "moco": {"method": "moco", "head": {"dim": 8}, "key_momentum": 0.9},
    "bingo": {"method": "bingo", "bags": "knn", "head": {"hidden": 20}},
    "official": {
        "method": "bingo",
        "objective": "official",
        "bags": "knn",
        "head": {"hidden": 20},
        "inter_free_epochs": 2,
    },
    "seed": {"method": "seed", "teacher": "t", "teacher_temperature": 0.01},
    "disco": {"method": "disco", "teacher": "t", "head": {"hidden": 20}, "key_momentum": 0.9, "distance_weight": 3.0},
    "compress 2q": {"method": "compress", "teacher": "t", "key_momentum": 0.9},
    "compress 1q": {"method": "compress", "teacher": "t", "variant": "1q"},
}


def settings_of(name, **changes):
    return TypeAdapter(Student).validate_python(COMMON | METHODS[name] | changes)


def build(name, teacher, batch_norm="eval", seed=0, **changes):
    """Return a model in train mode; methods that distil learn from ``teacher``."""
    torch.manual_seed(seed)
    method = settings_of(name, **changes)
    return TrainingModel(method, None if method.method == "moco" else OnlineTeacher(teacher, batch_norm)).train()


def step_input(model, number, epoch=0, seed=0):
    """Return noise for every view, another in every step."""
    generator = torch.Generator().manual_seed(1000 * epoch + number)
    images = {name: torch.randn(BATCH, 3, SIDE, SIDE, generator=generator) for name in model.method.views()}
    rows = {"anchor": np.arange(BATCH), "positive": np.arange(BATCH)}
    return StepInput(seed, epoch, number, images, rows)


def descend(network, loss):
    """Take one step of plain gradient descent and return the gradients."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= LR * gradient
    return gradients


def train_step(model, batch):
    """Return the values that the model logs, as numbers, and its gradients; its queues have moved on."""
    values = model(batch, FLOAT32)
    gradients = descend(model, values["loss"])
    model.after_step()
    return {name: float(value.detach()) for name, value in values.items()}, gradients


def unit(outputs):
    return outputs / outputs.square().sum(1, keepdim=True).sqrt()


def cross_entropy(queries, keys, queue, temperature):
    """CE of the reference, logit by logit, in float64."""
    terms = []
    for q, k in zip(queries.double(), keys.double(), strict=True):
        positive = torch.exp(q @ k / temperature)
        negatives = sum(torch.exp(q @ n.double() / temperature) for n in queue)
        terms.append(-torch.log(positive / (positive + negatives)))
    return sum(terms) / len(terms)


class Literal:
    """The networks and queues of a model, copied before its first step."""

    def __init__(self, model, teacher=None):
        self.student = copy.deepcopy(nn.Sequential(model.backbone, model.head)).train()
        self.average = copy.deepcopy(self.student)
        # Folded as the model's is, for steps add up what rounding it costs; tests of folding compare the two.
        self.backbone, self.head = (
            (fold_batch_norm(part) for part in (teacher.backbone, teacher.head)) if teacher else (None, None)
        )
        self.queues = {name: list(queue.keys.clone()) for name, queue in model.queues.items()}

    def embed(self, images):
        return unit(self.student(images))

    @torch.no_grad()
    def target(self, images):
        return unit(self.head(self.backbone(images)))

    @torch.no_grad()
    def target_features(self, images):
        return unit(self.backbone(images))

    @torch.no_grad()
    def key(self, images):
        return unit(self.average(images))

    @torch.no_grad()
    def move_average(self, momentum):
        for average, value in zip(self.average.parameters(), self.student.parameters(), strict=True):
            average.copy_(momentum * average + (1 - momentum) * value)

    def enqueue(self, name, keys):
        self.queues[name] = (self.queues[name] + list(keys.detach()))[-QUEUE:]


def require_literal_steps(model, teacher, literal_step, epoch=0, seed=0, tolerance=2e-4):
    """Take four steps, in which the queue wraps around, and compare each with what ``literal_step`` makes of it."""
    literal = Literal(model, teacher)
    for number in range(4):
        batch = step_input(model, number, epoch, seed)
        require_same_step(model, literal, train_step(model, batch), literal_step(literal, batch), tolerance)


def require_same_step(model, literal, found, expected, tolerance=2e-4):
    """Compare values, gradients, weights, batch-norm statistics and queues after one step.

    Gradients may differ by ``tolerance`` of their largest, values by a fortieth of it. The transcription then goes on
    from the model's state, because rounding would grow over steps.
    """
    (values, gradients), (expected_values, expected_gradients) = found, expected
    expected_values = {name: float(value.detach()) for name, value in expected_values.items()}
    assert values == pytest.approx(expected_values, rel=tolerance / 40, abs=1e-6)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, ours, theirs in zip(names, gradients, expected_gradients, strict=True):
        scale = max(float(theirs.abs().max()), 1e-3)
        error = float((ours - theirs).abs().max())
        assert error <= tolerance * scale, f"{name}: {error} of {scale}"
    pairs = [(nn.Sequential(model.backbone, model.head), literal.student)]
    if model.momentum_encoder is not None:
        pairs.append((model.momentum_encoder, literal.average))
    for ours, theirs in pairs:
        torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=1e-3, atol=1e-4)
        theirs.load_state_dict(ours.state_dict())
    assert list(model.queues) == list(literal.queues)
    for name, queue in model.queues.items():
        keys = queue.keys.roll(-int(queue.position), 0)  # oldest first
        torch.testing.assert_close(keys, torch.stack(literal.queues[name]), rtol=1e-3, atol=1e-5)
        literal.queues[name] = list(keys.clone())
