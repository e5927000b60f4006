import copy

import pytest
import torch
import torch.nn.functional as F

from .literal import BATCH, QUEUE, Literal, build, descend, require_same_step, step_input, train_step

TEMPERATURE, MOMENTUM = 0.2, 0.9


def literal_step(literal, images):
    """MoCo's Algorithm 1, line by line: two separate networks, a list for a queue, the whole logit matrix."""
    q = literal.embed(images["query"])
    literal.move_average(MOMENTUM)
    k = literal.key(images["key"])
    name, queue = next(iter(literal.queues.items()))
    positive = torch.stack([q[i] @ k[i] for i in range(len(q))])[:, None]
    negative = torch.stack([torch.stack([q[i] @ n for n in queue]) for i in range(len(q))])
    loss = F.cross_entropy(torch.cat([positive, negative], 1) / TEMPERATURE, torch.zeros(len(q), dtype=torch.int64))
    gradients = descend(literal.student, loss)
    literal.enqueue(name, k)
    return {"loss": float(loss.detach())}, gradients


def same_state(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    assert list(found) == list(expected)
    return all(torch.equal(found[name], expected[name]) for name in found)


def test_several_steps_are_those_of_a_literal_transcription():
    learner = build("moco", None)
    literal = Literal(learner)
    for number in range(5):  # the queue is overwritten once and more
        batch = step_input(learner, number)
        found = train_step(learner, batch)
        require_same_step(learner, literal, found, literal_step(literal, batch.images))


def test_a_loss_sees_only_keys_of_earlier_steps():
    learner = build("moco", None)
    (queue,) = learner.queues.values()
    before, batch = queue.keys.clone(), step_input(learner, 0)
    learner(batch, torch.float32)
    assert torch.equal(queue.keys, before)
    learner.after_step()
    with torch.no_grad():
        keys = F.normalize(copy.deepcopy(learner.momentum_encoder)(batch.images["key"]), dim=1)
    torch.testing.assert_close(queue.keys[:BATCH], keys)
    assert torch.equal(queue.keys[BATCH:], before[BATCH:])
    assert queue.keys.shape == (QUEUE, 8)


def test_moco_asks_for_two_different_views_of_the_anchor_and_no_teacher():
    views = build("moco", None).method.views()
    assert [(view.image, view.student, view.teacher) for view in views.values()] == [("anchor", True, False)] * 2
    assert len({view.slot for view in views.values()}) == 2


def test_the_heads_hidden_layer_is_as_wide_as_the_backbone_unless_named():
    assert build("moco", None).head[0].out_features == build("moco", None).backbone.dim == 32
    assert build("moco", None, head={"dim": 8, "hidden": 11}).head[0].out_features == 11


def test_key_batch_norm_is_in_train_mode_with_statistics_of_its_own():
    learner = build("moco", None)
    lone = copy.deepcopy(learner.momentum_encoder).train()  # equal parameters, so the first update changes nothing
    batch = step_input(learner, 0)
    with torch.no_grad():
        lone(batch.images["key"])
    learner(batch, torch.float32)
    for name, value in lone.named_buffers():
        torch.testing.assert_close(dict(learner.momentum_encoder.named_buffers())[name], value)
    assert not torch.allclose(learner.momentum_encoder[0].bn1.running_mean, learner.backbone.bn1.running_mean)


AVERAGED = ["moco", "disco", "compress 2q"]


@pytest.mark.parametrize("name", AVERAGED)
def test_the_moving_average_starts_as_a_copy_of_the_student(name, teacher):
    learner = build(name, teacher)
    assert same_state(learner.momentum_encoder, torch.nn.Sequential(learner.backbone, learner.head))
    shared = {p.data_ptr() for p in learner.momentum_encoder.parameters()}
    assert not shared & {p.data_ptr() for p in [*learner.backbone.parameters(), *learner.head.parameters()]}


@pytest.mark.parametrize("name", AVERAGED)
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.999, 1.0])
def test_the_average_moves_once_a_step_before_the_keys_are_computed(momentum, name, teacher):
    learner = build(name, teacher, key_momentum=momentum)
    with torch.no_grad():
        for parameter in learner.momentum_encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    start = [parameter.double().clone() for parameter in learner.momentum_encoder.parameters()]
    student = [*learner.backbone.parameters(), *learner.head.parameters()]
    expected = [momentum * k + (1 - momentum) * q.double() for k, q in zip(start, student, strict=True)]
    used = []
    learner.momentum_encoder.register_forward_pre_hook(
        lambda encoder, _: used.extend(parameter.double().clone() for parameter in encoder.parameters())
    )
    learner(step_input(learner, 0), torch.float32)
    for found, value in zip(used, expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-6)
    for parameter, value in zip(learner.momentum_encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.double(), value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", AVERAGED)
def test_gradients_reach_nothing_of_the_moving_average(name, teacher):
    learner = build(name, teacher)
    learner(step_input(learner, 0), torch.float32)["loss"].backward()
    for parameter in learner.momentum_encoder.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
