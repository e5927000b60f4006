import numpy as np
import pytest
import torch

from bingo.methods.compress import Compress
from bingo.methods.disco import Disco
from bingo.training.model import TrainingModel
from bingo.training.step import StepInput, TrainingStep

BATCH = 4


class Source:
    """A teacher whose outputs tell what it was asked for."""

    def __init__(self):
        self.asked = []

    def width(self, layer):
        return {"projection": 3, "features": 5}[layer]

    def outputs(self, layer, view, batch, images):
        self.asked.append((layer, view, batch, images))
        return torch.arange(1.0, BATCH * self.width(layer) + 1, requires_grad=True).reshape(BATCH, -1).bfloat16()


def model_of(kind=Disco, **keys):
    torch.manual_seed(0)
    name = kind.model_fields["method"].annotation.__args__[0]
    backbone = {"architecture": "resnet10", "stem": "small", "width": 1 / 32}
    return TrainingModel(kind.model_validate({"method": name, "backbone": backbone, "queue_size": 6, **keys}), Source())


def step_of(model, dtype=torch.float32):
    images = {name: torch.randn(BATCH, 3, 8, 8) for name in model.method.views()}
    batch = StepInput(3, 1, 2, images, {"anchor": np.arange(BATCH)})
    return TrainingStep(model.train(), batch, dtype), batch


@pytest.mark.parametrize(("kind", "layer"), [(Disco, "projection"), (Compress, "features")])
def test_the_teacher_is_asked_for_a_view_of_the_batch_and_its_outputs_are_unit_vectors_without_gradient(kind, layer):
    model = model_of(kind)
    step, batch = step_of(model)
    name, view = next(iter(model.method.views().items()))
    found = step.teacher(name)
    (asked,) = model.teacher.asked
    assert asked[:2] == (layer, view)
    assert asked[2] is batch
    assert asked[3] is batch.images[name]
    assert found.dtype == torch.float32
    assert not found.requires_grad
    raw = torch.arange(1.0, BATCH * model.teacher.width(layer) + 1).reshape(BATCH, -1)
    torch.testing.assert_close(found, raw / raw.norm(dim=1, keepdim=True), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(BATCH))


def test_the_moving_average_moves_at_its_first_use_of_a_step_and_only_then():
    model = model_of(key_momentum=0.5)
    for parameter in model.momentum_encoder.parameters():
        parameter.data += 1
    start = [parameter.clone() for parameter in model.momentum_encoder.parameters()]
    student = [*model.backbone.parameters(), *model.head.parameters()]
    step, batch = step_of(model)
    step.student(batch.images["query"])
    assert all(torch.equal(a, b) for a, b in zip(start, model.momentum_encoder.parameters(), strict=True))
    for images in batch.images.values():  # the second use finds it moved
        assert not step.momentum(images).requires_grad
        for first, value, found in zip(start, student, model.momentum_encoder.parameters(), strict=True):
            torch.testing.assert_close(found, 0.5 * first + 0.5 * value)
    again, _ = step_of(model)
    again.momentum(batch.images["key"])
    for first, value, found in zip(start, student, model.momentum_encoder.parameters(), strict=True):
        torch.testing.assert_close(found, 0.25 * first + 0.75 * value)
