"""What holds for every method."""

import copy

import pytest
import torch
from torch import nn

from bingo.study.schema import Student

from .literal import BATCH, METHODS, build, settings_of, step_input, train_step

# Of each method: its views as (image, slot, seen by the student, seen by the teacher); the teacher's layer.
BOTH, STUDENT, TEACHER = (True, True), (True, False), (False, True)
VIEWS = {
    "moco": ({"query": ("anchor", 0, *STUDENT), "key": ("anchor", 1, *STUDENT)}, None),
    "bingo": (
        {
            "anchor": ("anchor", 0, *STUDENT),
            "positive": ("positive", 1, *STUDENT),
            "anchor_target": ("anchor", 0, *TEACHER),
        },
        "projection",
    ),
    "official": (
        {
            "anchor": ("anchor", 0, *STUDENT),
            "positive": ("positive", 1, *STUDENT),
            "anchor_target": ("anchor", 0, *TEACHER),
            "positive_target": ("positive", 0, *TEACHER),
        },
        "projection",
    ),
    "seed": ({"image": ("anchor", 0, *BOTH)}, "projection"),
    "disco": ({"query": ("anchor", 0, *BOTH), "key": ("anchor", 1, *BOTH)}, "projection"),
    "compress 2q": ({"image": ("anchor", 0, *BOTH)}, "features"),
    "compress 1q": ({"image": ("anchor", 0, *BOTH)}, "features"),
}
# Of each method: the widths of its head's linear layers, with a backbone of 32 features and a teacher of 16 -> 12.
HEADS = {
    "moco": [32, 8],
    "bingo": [20, 12],
    "official": [20, 12],
    "seed": [32, 12],
    "disco": [20, 12],
    "compress 2q": [],
    "compress 1q": [16],
}


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def test_every_method_is_tested():
    tags = {member.model_fields["method"].annotation.__args__[0] for member in Student.__origin__.__args__}
    assert tags == {settings["method"] for settings in METHODS.values()}


def test_a_method_asks_for_its_views(name):
    method, (views, layer) = settings_of(name), VIEWS[name]
    found = {key: (view.image, view.slot, view.student, view.teacher) for key, view in method.views().items()}
    assert found == views
    assert method.draws_positives() == any(view[0] == "positive" for view in views.values())
    assert method.teacher_view_slots() == sorted({slot for _, slot, _, taught in views.values() if taught})
    assert layer in (None, method.layer)


def test_a_head_ends_at_the_width_of_what_it_is_compared_with(name, teacher):
    model = build(name, teacher)
    assert [layer.out_features for layer in model.head if isinstance(layer, nn.Linear)] == HEADS[name]
    if name in ("bingo", "official"):
        assert build(name, teacher, head={}).head[0].out_features == 2048
    if name == "seed":
        assert build(name, teacher, head={"hidden": 9}).head[0].out_features == 9


def test_gradients_reach_every_parameter_of_the_student(name, teacher):
    model = build(name, teacher)
    _, gradients = train_step(model, step_input(model, 0))
    student = nn.Sequential(model.backbone, model.head)
    assert len(gradients) == len(list(student.parameters()))
    assert {id(p) for p in student.parameters()} == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert not any(value.requires_grad for value in model.buffers())


def test_the_state_is_student_average_and_queues_and_not_the_teacher(name, teacher):
    model = build(name, teacher)
    parts = {key.partition(".")[0] for key in model.state_dict()}
    expected = {"backbone", "queues"}
    expected |= {"head"} if len(model.head) else set()
    expected |= {"momentum_encoder"} if settings_of(name).ema_momentum() is not None else set()
    assert parts == expected
    for queue in model.method.queues():
        assert {f"queues.{queue}.keys", f"queues.{queue}.position"} <= set(model.state_dict())
    of_teacher = {p.data_ptr() for network in (teacher.backbone, teacher.head) for p in network.parameters()}
    assert not of_teacher & {value.data_ptr() for value in model.state_dict().values()}


def test_queues_take_unit_vectors_after_the_step_and_only_once(name, teacher):
    model = build(name, teacher)
    before = copy.deepcopy(model.queues.state_dict())
    model(step_input(model, 0), torch.float32)
    assert all(torch.equal(value, before[key]) for key, value in model.queues.state_dict().items())
    for _ in range(2):  # the second finds nothing left to do
        model.after_step()
    for queue in model.queues.values():
        assert int(queue.position) == BATCH
        torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(len(queue.keys)))


def test_under_bfloat16_networks_compute_in_it_and_losses_in_float32(name, teacher, monkeypatch):
    model, kind = build(name, teacher), type(settings_of(name))
    loss, convolved, embedded = kind.loss, [], []

    def watched_loss(method, step):
        assert not torch.is_autocast_enabled("cpu")
        for network in ("student", "momentum", "teacher"):
            call = getattr(step, network)
            monkeypatch.setattr(
                step, network, lambda *args, call=call, **keys: embedded.append(call(*args, **keys)) or embedded[-1]
            )
        return loss(method, step)

    monkeypatch.setattr(kind, "loss", watched_loss)
    networks = [model.backbone, *(model.momentum_encoder or [])[:1], *([teacher.backbone] if name != "moco" else [])]
    for network in networks:
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_hook(lambda _module, _inputs, output: convolved.append(output.dtype))
    values = model(step_input(model, 0, epoch=5), torch.bfloat16)
    assert {value.dtype for value in values.values()} == {torch.float32}
    assert set(convolved) == {torch.bfloat16}
    assert len(embedded) > 1
    for output in embedded:
        assert output.dtype == torch.float32
        torch.testing.assert_close(output.norm(dim=1), torch.ones(BATCH))
    exact = model(step_input(model, 0, epoch=5), torch.float32)
    assert float(exact["loss"].detach()) != float(values["loss"].detach())
