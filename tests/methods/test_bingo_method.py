import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bingo.config import Bingo, Moco
from bingo.methods import build_method
from bingo.methods.bingo import BingoMethod
from bingo.methods.moco import MocoMethod
from bingo.tensors import digest_tensors

BATCH, QUEUE, TEMPERATURE, LR = 6, 16, 0.2, 0.5
SETTINGS = Bingo.model_validate(
    {
        "method": "bingo",
        "bags": "knn",
        "backbone": {"architecture": "resnet10", "stem": "small", "width": 1 / 16},
        "head": {"hidden": 20},
        "temperature": TEMPERATURE,
        "queue_size": QUEUE,
    }
)


@pytest.fixture
def method(teacher):
    torch.manual_seed(0)
    return BingoMethod(SETTINGS, teacher).train()


def views(step):
    return list(torch.randn(3, BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(step)))


def train_step(method, step):
    loss, values = method(views(step))
    method.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter -= LR * parameter.grad
    method.after_step()
    return {name: float(value) for name, value in values.items()}


def literal_cross_entropy(queries, keys, queue):
    """The paper's equation for one term, logit by logit, in float64."""
    terms = []
    for q, k in zip(queries.double(), keys.double(), strict=True):
        positive = torch.exp(q @ k / TEMPERATURE)
        negatives = sum(torch.exp(q @ n / TEMPERATURE) for n in queue.double())
        terms.append(-torch.log(positive / (positive + negatives)))
    return torch.stack(terms).mean()


def test_several_steps_are_those_of_a_literal_transcription(method, teacher):
    student = copy.deepcopy(nn.Sequential(method.backbone, method.head)).train()
    queue = list(method.queue.keys.clone())
    for step in range(5):
        anchor, anchor_for_teacher, member = views(step)
        with torch.no_grad():
            keys = F.normalize(teacher.head(teacher.backbone(anchor_for_teacher)), dim=1)
        intra, inter = (
            literal_cross_entropy(F.normalize(student(view), dim=1), keys, torch.stack(queue))
            for view in (anchor, member)
        )
        student.zero_grad()
        (intra + inter).backward()
        with torch.no_grad():
            for parameter in student.parameters():
                parameter -= LR * parameter.grad
        queue = (queue + list(keys))[-QUEUE:]

        found = train_step(method, step)
        intra, inter = float(intra.detach()), float(inter.detach())
        expected = {"loss": intra + inter, "intra": intra, "inter": inter}
        assert found == pytest.approx(expected, rel=2e-6 if step == 0 else 1e-4)
        ours = nn.Sequential(method.backbone, method.head).state_dict()
        for name, value in student.state_dict().items():  # also batch-norm's statistics: anchor first, then member
            torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)
        ordered = method.queue.keys.roll(-int(method.queue.position), 0)
        torch.testing.assert_close(ordered, torch.stack(queue))


def test_the_queue_takes_the_teachers_embeddings_of_the_anchor_after_the_step(method, teacher):
    before = method.queue.keys.clone()
    method(views(0))
    assert torch.equal(method.queue.keys, before)
    method.after_step()
    # Teachers see the second view, which is one of the anchor.
    assert method.views[1].image == "anchor"
    keys = F.normalize(teacher.head(teacher.backbone(views(0)[1])), dim=1)
    torch.testing.assert_close(method.queue.keys[:BATCH], keys)
    assert torch.equal(method.queue.keys[BATCH:], before[BATCH:])


def test_a_training_step_leaves_the_teacher_untouched_and_in_eval_mode(method, teacher):
    def fingerprints():
        return [digest_tensors(network.state_dict()) for network in (teacher.backbone, teacher.head)]

    before = fingerprints()
    method.to(torch.device("cpu")).train()
    for step in range(2):
        train_step(method, step)
    assert fingerprints() == before
    for network in (teacher.backbone, teacher.head):
        assert not any(module.training for module in network.modules())
        assert all(parameter.grad is None for parameter in network.parameters())


def test_a_teachers_key_does_not_depend_on_the_rest_of_its_batch(method):
    keys = []
    for rows in (slice(None), slice(0, 2)):
        method([view[rows] for view in views(0)])
        keys.append(method._keys[:2])
    torch.testing.assert_close(*keys)


def test_the_teacher_is_no_part_of_the_state(method, teacher):
    student = nn.Sequential()
    student.backbone, student.head = method.backbone, method.head
    assert set(method.state_dict()) == {*student.state_dict(), "queue.keys", "queue.position"}
    assert {id(p) for p in method.parameters()} == {id(p) for p in student.parameters()}


def test_gradients_of_both_terms_reach_the_student(method):
    anchor, key, member = views(0)
    for view in (anchor, member):
        view.requires_grad_()
    key.requires_grad_()
    loss, _ = method([anchor, key, member])
    loss.backward()
    assert anchor.grad.abs().max() > 0
    assert member.grad.abs().max() > 0
    assert key.grad is None
    assert all(parameter.grad.abs().max() > 0 for parameter in method.parameters())


def test_state_restores_the_next_step(method, teacher):
    for step in range(2):
        train_step(method, step)
    torch.manual_seed(7)
    other = BingoMethod(SETTINGS, teacher).train()
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    assert train_step(method, 2) == train_step(other, 2)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in method.state_dict().items())


def test_under_bfloat16_the_logits_are_still_float32(method):
    queries = []
    method.head.register_forward_hook(
        lambda _m, _i, output: queries.append(F.normalize(output.detach().float(), dim=1))
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = method(views(0))
    keys, queue = method._keys, method.queue.keys
    assert keys.dtype == loss.dtype == torch.float32
    expected = sum(literal_cross_entropy(query, keys, queue) for query in queries)
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-6, atol=1e-6)


def test_three_different_views_are_asked_for_the_last_of_a_bag_member():
    assert [request.image for request in BingoMethod.views] == ["anchor", "anchor", "positive"]
    assert len({request.view for request in BingoMethod.views}) == 3


def test_the_students_head_ends_at_the_teachers_width(method, teacher):
    assert method.head[-1].out_features == teacher.dim == 12
    assert method.head[0].out_features == 20


def test_build_method_gives_the_method_that_is_named(teacher):
    moco = Moco.model_validate({"method": "moco", "backbone": SETTINGS.backbone.model_dump(), "queue_size": 8})
    assert type(build_method(SETTINGS, teacher)) is BingoMethod
    assert type(build_method(moco, None)) is MocoMethod


def test_initial_weights_are_a_function_of_torchs_seed(teacher):
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(digest_tensors(build_method(SETTINGS, teacher).state_dict()))
    assert states[0] == states[1] != states[2]
