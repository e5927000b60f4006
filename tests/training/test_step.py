import numpy as np
import pytest
import torch

from bingo.methods.compress import Compress
from bingo.methods.disco import Disco
from bingo.study.method import View
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


def learner_of(kind=Disco, **keys):
    torch.manual_seed(0)
    name = kind.model_fields["method"].annotation.__args__[0]
    backbone = {"architecture": "resnet10", "stem": "small", "width": 1 / 32}
    return TrainingModel(kind.model_validate({"method": name, "backbone": backbone, "queue_size": 6, **keys}), Source())


def step_of(learner, dtype=torch.float32):
    images = {name: torch.randn(BATCH, 3, 8, 8) for name in learner.method.views()}
    batch = StepInput(3, 1, 2, images, {"anchor": np.arange(BATCH)})
    return TrainingStep(learner.train(), batch, dtype), batch


def test_a_step_knows_where_in_training_it_stands():
    step, batch = step_of(learner_of())
    assert (step.seed, step.epoch, step.step, step.images) == (3, 1, 2, batch.images)


@pytest.mark.parametrize(("kind", "layer"), [(Disco, "projection"), (Compress, "features")])
def test_the_teacher_is_asked_for_a_view_of_the_batch_and_its_outputs_are_unit_vectors_without_gradient(kind, layer):
    learner = learner_of(kind)
    step, batch = step_of(learner)
    name, view = next(iter(learner.method.views().items()))
    found = step.teacher(name)
    (asked,) = learner.teacher.asked
    assert asked[:2] == (layer, view)
    assert asked[2] is batch
    assert asked[3] is batch.images[name]
    assert found.dtype == torch.float32
    assert not found.requires_grad
    raw = torch.arange(1.0, BATCH * learner.teacher.width(layer) + 1).reshape(BATCH, -1)
    torch.testing.assert_close(found, raw / raw.norm(dim=1, keepdim=True), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(BATCH))


def test_a_view_that_is_stored_has_no_images():
    learner = learner_of()
    batch = StepInput(0, 0, 0, {}, {"anchor": np.arange(BATCH)})
    TrainingStep(learner, batch, torch.float32).teacher("query")
    assert learner.teacher.asked[0][1] == View("anchor", 0, teacher=True)
    assert learner.teacher.asked[0][3] is None


def test_the_moving_average_moves_at_its_first_use_of_a_step_and_only_then():
    learner = learner_of(key_momentum=0.5)
    for parameter in learner.momentum_encoder.parameters():
        parameter.data += 1
    start = [parameter.clone() for parameter in learner.momentum_encoder.parameters()]
    student = [*learner.backbone.parameters(), *learner.head.parameters()]
    step, batch = step_of(learner)
    step.student(batch.images["query"])
    assert all(torch.equal(a, b) for a, b in zip(start, learner.momentum_encoder.parameters(), strict=True))
    for images in batch.images.values():  # the second use finds it moved
        assert not step.momentum(images).requires_grad
        for first, value, found in zip(start, student, learner.momentum_encoder.parameters(), strict=True):
            torch.testing.assert_close(found, 0.5 * first + 0.5 * value)
    again, _ = step_of(learner)
    again.momentum(batch.images["key"])
    for first, value, found in zip(start, student, learner.momentum_encoder.parameters(), strict=True):
        torch.testing.assert_close(found, 0.25 * first + 0.75 * value)


def test_embeddings_of_the_student_are_unit_vectors_with_gradient_and_count_for_its_statistics_unless_told():
    learner = learner_of()
    step, batch = step_of(learner)
    tracked = []
    for track in (True, False, True):
        found = step.student(batch.images["query"], track)
        assert found.requires_grad
        torch.testing.assert_close(found.norm(dim=1), torch.ones(BATCH))
        tracked.append(int(learner.backbone.bn1.num_batches_tracked))
    assert tracked == [1, 1, 2]


def test_a_queue_is_as_it_was_before_the_step_and_what_joins_it_keeps_no_graph():
    learner = learner_of()
    step, batch = step_of(learner)
    before = step.queue("negatives").clone()
    step.enqueue("negatives", step.student(batch.images["query"]))
    assert torch.equal(step.queue("negatives"), before)
    assert not step.pending["negatives"].requires_grad
    assert step.queue("negatives").shape == (6, 3)


def test_a_learner_without_a_moving_average_or_a_teacher_has_none():
    learner = learner_of(Compress, variant="1q")
    assert learner.momentum_encoder is None
    step, batch = step_of(learner)
    with pytest.raises(AssertionError):
        step.momentum(batch.images["image"])
    learner.teacher = None
    with pytest.raises(AssertionError):
        step.teacher("image")
