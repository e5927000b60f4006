import copy

import pytest
import torch
import torch.nn.functional as F

from bingo.config import Moco
from bingo.methods.method import ViewRequest
from bingo.methods.moco import MocoMethod

BATCH, QUEUE, DIM, TEMPERATURE, MOMENTUM, LR = 6, 16, 8, 0.2, 0.9, 0.5


def build(**changes):
    torch.manual_seed(0)
    settings = {
        "method": "moco",
        "backbone": {"architecture": "resnet10", "stem": "small", "width": 1 / 16},
        "head": {"dim": DIM},
        "temperature": TEMPERATURE,
        "queue_size": QUEUE,
        "key_momentum": MOMENTUM,
    }
    return MocoMethod(Moco.model_validate(settings | changes)).train()


def views(step):
    return list(torch.randn(2, BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(step)))


def train_step(method, step):
    loss, _ = method(views(step))
    method.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter -= LR * parameter.grad
    method.after_step()
    return loss.detach()


class LiteralMoco:
    """MoCo's Algorithm 1, line by line: two separate networks, a list for a queue, the whole logit matrix."""

    def __init__(self, method):
        self.f_q = copy.deepcopy(torch.nn.Sequential(method.backbone, method.head))
        self.f_k = copy.deepcopy(self.f_q)
        self.queue = list(method.queue.keys.clone())

    def step(self, x_q, x_k):
        q = F.normalize(self.f_q(x_q), dim=1)
        with torch.no_grad():
            for k_parameter, q_parameter in zip(self.f_k.parameters(), self.f_q.parameters(), strict=True):
                k_parameter.copy_(MOMENTUM * k_parameter + (1 - MOMENTUM) * q_parameter)
            k = F.normalize(self.f_k(x_k), dim=1)
        positive = torch.stack([q[i] @ k[i] for i in range(len(q))])[:, None]
        negative = torch.stack([torch.stack([q[i] @ n for n in self.queue]) for i in range(len(q))])
        loss = F.cross_entropy(torch.cat([positive, negative], 1) / TEMPERATURE, torch.zeros(len(q), dtype=torch.int64))
        self.f_q.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in self.f_q.parameters():
                parameter -= LR * parameter.grad
        self.queue = (self.queue + list(k))[-QUEUE:]
        return loss.detach()


def assert_same_state(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    assert list(found) == list(expected)
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_several_steps_are_those_of_a_literal_transcription():
    method = build()
    literal = LiteralMoco(method)
    for step in range(5):  # the queue is overwritten once and more
        expected = literal.step(*views(step))
        torch.testing.assert_close(train_step(method, step), expected, rtol=1e-5, atol=1e-5)
        # Parameters and batch-norm buffers of both encoders; the queue in order.
        assert_same_state(torch.nn.Sequential(method.backbone, method.head), literal.f_q)
        assert_same_state(method.key_encoder, literal.f_k)
        ordered = method.queue.keys.roll(-int(method.queue.position), 0)
        torch.testing.assert_close(ordered, torch.stack(literal.queue), rtol=1e-4, atol=1e-5)


def test_a_loss_sees_only_keys_of_earlier_steps():
    method = build()
    before = method.queue.keys.clone()
    method(views(0))
    assert torch.equal(method.queue.keys, before)
    method.after_step()
    with torch.no_grad():
        keys = F.normalize(copy.deepcopy(method.key_encoder)(views(0)[1]), dim=1)
    torch.testing.assert_close(method.queue.keys[:BATCH], keys)
    assert torch.equal(method.queue.keys[BATCH:], before[BATCH:])


def test_the_key_encoder_starts_as_a_copy_of_the_query_encoder():
    method = build()
    assert_same_state(method.key_encoder, torch.nn.Sequential(method.backbone, method.head))
    shared = {p.data_ptr() for p in method.key_encoder.parameters()}
    assert not shared & {p.data_ptr() for p in [*method.backbone.parameters(), *method.head.parameters()]}


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.999, 1.0])
def test_key_parameters_are_the_exponential_moving_average_before_the_keys_are_computed(momentum):
    method = build(key_momentum=momentum)
    with torch.no_grad():
        for parameter in method.key_encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    start = [parameter.double().clone() for parameter in method.key_encoder.parameters()]
    query = [*method.backbone.parameters(), *method.head.parameters()]
    expected = [momentum * k + (1 - momentum) * q.double() for k, q in zip(start, query, strict=True)]
    used = []
    method.key_encoder.register_forward_pre_hook(
        lambda encoder, _: used.extend(parameter.double().clone() for parameter in encoder.parameters())
    )
    method(views(0))
    for found, value in zip(used, expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-6)


def test_gradients_reach_all_of_the_query_encoder_and_nothing_of_the_key_encoder():
    method = build()
    loss, _ = method(views(0))
    loss.backward()
    for parameter in [*method.backbone.parameters(), *method.head.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
    for parameter in method.key_encoder.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
    assert not method.queue.keys.requires_grad


def test_key_batch_norm_is_in_train_mode_with_statistics_of_its_own():
    method = build()
    lone = copy.deepcopy(method.key_encoder).train()  # equal parameters, so the first update changes nothing
    query_view, key_view = views(0)
    with torch.no_grad():
        lone(key_view)
    method([query_view, key_view])
    for name, value in lone.named_buffers():
        torch.testing.assert_close(dict(method.key_encoder.named_buffers())[name], value)
    assert not torch.allclose(method.key_encoder[0].bn1.running_mean, method.backbone.bn1.running_mean)


def test_under_bfloat16_the_logits_are_still_float32():
    method = build()
    outputs = {}
    method.head.register_forward_hook(lambda _m, _i, output: outputs.__setitem__("query", output.detach()))
    method.key_encoder.register_forward_hook(lambda _m, _i, output: outputs.__setitem__("key", output))
    with torch.autocast("cpu", torch.bfloat16):
        loss, values = method(views(0))
    assert outputs["query"].dtype == outputs["key"].dtype == torch.bfloat16
    q, k = (F.normalize(outputs[name].double(), dim=1) for name in ("query", "key"))
    logits = torch.cat([(q * k).sum(1)[:, None], q @ method.queue.keys.double().T], 1) / TEMPERATURE
    expected = F.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.int64))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(values["loss"], loss.detach())


def test_state_holds_encoders_and_queue_and_restores_the_next_step():
    method = build()
    for step in range(2):
        train_step(method, step)
    state = copy.deepcopy(method.state_dict())
    other = build()
    other.load_state_dict(state)
    assert {name.split(".")[0] for name in state} == {"backbone", "head", "key_encoder", "queue"}
    assert torch.equal(train_step(method, 2), train_step(other, 2))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in method.state_dict().items())


def test_moco_asks_for_two_different_views_of_the_anchor():
    assert [request.image for request in MocoMethod.views] == ["anchor", "anchor"]
    assert len(set(MocoMethod.views)) == 2
    assert isinstance(MocoMethod.views[0], ViewRequest)


def test_the_heads_hidden_layer_is_as_wide_as_the_backbone_unless_named():
    assert build().head[0].out_features == build().backbone.dim == 32
    assert build(head={"dim": 8, "hidden": 11}).head[0].out_features == 11
