import copy

import pytest
import torch

from .literal import BATCH, Literal, build, cross_entropy, descend, require_same_step, step_input, train_step

MOMENTUM = 0.9


def literal_step(literal, images, weight):
    """CE(s(x1), s_EMA(x2)) + w (|T(x1) - s(x1)|^2 + |T(x2) - s(x2)|^2), each a mean over the batch."""
    first, second = literal.embed(images["query"]), literal.embed(images["key"])
    literal.move_average(MOMENTUM)
    key = literal.key(images["key"])
    name, queue = next(iter(literal.queues.items()))
    contrast = cross_entropy(first, key, queue, 0.2)
    distance = 0
    for student, view in ((first, "query"), (second, "key")):
        for s, t in zip(student.double(), literal.target(images[view]).double(), strict=True):
            distance = distance + ((t - s) ** 2).sum() / BATCH
    loss = contrast + weight * distance
    gradients = descend(literal.student, loss)
    literal.enqueue(name, key)
    values = {"loss": loss, "contrast": contrast, "distance": distance}
    return {key: float(value.detach()) for key, value in values.items()}, gradients


@pytest.mark.parametrize("weight", [0.0, 3.0, 32.0])
def test_several_steps_are_those_of_a_literal_transcription(weight, teacher):
    learner = build("disco", teacher, distance_weight=weight)
    literal = Literal(learner, teacher)
    for number in range(5):  # the queue wraps round
        batch = step_input(learner, number)
        found = train_step(learner, batch)
        require_same_step(learner, literal, found, literal_step(literal, batch.images, weight))


def test_the_queue_holds_keys_of_the_momentum_student_as_wide_as_the_teacher(teacher):
    learner = build("disco", teacher)
    (queue,) = learner.queues.values()
    assert queue.keys.shape[1] == teacher.dim == 12
    before, batch = queue.keys.clone(), step_input(learner, 0)
    learner(batch, torch.float32)
    assert torch.equal(queue.keys, before)
    learner.after_step()
    with torch.no_grad():
        keys = torch.nn.functional.normalize(copy.deepcopy(learner.momentum_encoder)(batch.images["key"]), dim=1)
    torch.testing.assert_close(queue.keys[:BATCH], keys)


def test_the_momentum_students_batch_norm_is_in_train_mode_with_statistics_of_its_own(teacher):
    learner = build("disco", teacher, key_momentum=1.0)
    lone = copy.deepcopy(learner.momentum_encoder).train()
    batch = step_input(learner, 0)
    with torch.no_grad():
        lone(batch.images["key"])
    learner(batch, torch.float32)
    for name, value in lone.named_buffers():
        torch.testing.assert_close(dict(learner.momentum_encoder.named_buffers())[name], value)
    assert int(learner.momentum_encoder[0].bn1.num_batches_tracked) == 1
    assert int(learner.backbone.bn1.num_batches_tracked) == 2  # both views


def test_both_views_are_seen_by_both_networks(teacher):
    views = build("disco", teacher).method.views()
    assert {(view.image, view.student, view.teacher) for view in views.values()} == {("anchor", True, True)}
    assert len({view.slot for view in views.values()}) == 2
    assert build("disco", teacher).method.teacher_view_slots() == [0, 1]
