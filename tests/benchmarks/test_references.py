"""What the benchmarks compare with computes the same."""

import copy

import pytest
import torch
from torch import nn

from benchmarks import loss
from benchmarks.released import ReleasedStep, released_loss
from benchmarks.steps import make_optimizer, take_step
from bingo.methods.bingo import Bingo
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import TeacherNetwork
from bingo.models.head import mlp_head
from bingo.study.sections import Backbone, Training
from bingo.training.model import TrainingModel
from bingo.training.step import StepInput
from bingo.training.teacher import OnlineTeacher
from bingo.views.cutmix import draw_box

SIZE, EPOCH = 16, 20
NARROW = Backbone(architecture="resnet10", stem="small", width=1 / 16)


def test_the_released_codes_loss_and_gradients_are_ours():
    found = []
    for compute in (loss.our_loss, released_loss):
        queries, keys, queue = loss.embeddings(torch.device("cpu"), batch=8, size=500)
        value = compute(queries, keys, loss.WEIGHTS, queue, 0.2)
        value.backward()
        found.append([value.detach(), *(query.grad for query in queries)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_released_codes_first_step_gives_our_loss_and_weights():
    torch.manual_seed(0)
    backbone = build_backbone(NARROW)
    head = mlp_head(backbone.dim, [backbone.dim, 12])
    teacher = TeacherNetwork(*(net.eval().requires_grad_(False) for net in (backbone, head)), "digest", {})
    method = Bingo.model_validate(
        {"method": "bingo", "objective": "official", "bags": "knn", "backbone": NARROW, "queue_size": 40}
        | {"teacher_batch_norm": "batch", "training": Training(lr=0.1)}
    )
    model = TrainingModel(method, OnlineTeacher(teacher, "batch")).train()
    images = {name: torch.randn(6, 3, SIZE, SIZE) for name in method.views()}
    student = nn.Sequential(*copy.deepcopy([model.backbone, model.head]))
    queue = model.queues["negatives"].keys.clone()
    released = ReleasedStep(student, nn.Sequential(*copy.deepcopy([backbone, head])), queue, method.temperature, 0.1)
    box = draw_box(0, EPOCH, 0, SIZE)
    expected = released(images, (box.top, box.left, box.bottom, box.right))
    batch = StepInput(0, EPOCH, 0, images, {})
    values = take_step(model, make_optimizer(model, method.training), batch, torch.float32)
    assert float(values["loss"]) == pytest.approx(expected, rel=1e-5)
    pairs = zip([*model.backbone.parameters(), *model.head.parameters()], student.parameters(), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(model.queues["negatives"].keys, queue)
