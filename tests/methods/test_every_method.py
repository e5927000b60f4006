"""What holds for every method."""

import copy
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from bingo.artifacts.tensors import digest_tensors
from bingo.study.schema import Student
from bingo.training import model as engine

from .literal import BATCH, METHODS, build, settings_of, step_input, train_step


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def test_settings_say_which_method_it_is(name):
    settings = settings_of(name)
    assert settings.method == METHODS[name]["method"]
    assert TypeAdapter(Student).validate_json(settings.model_dump_json()) == settings


def test_every_method_is_tested():
    tags = {member.model_fields["method"].annotation.__args__[0] for member in Student.__origin__.__args__}
    assert tags == {settings["method"] for settings in METHODS.values()}


def test_views_of_an_image_are_told_apart_and_each_is_seen(name):
    views = settings_of(name).views().values()
    assert all(view.student or view.teacher for view in views)
    assert len({(view.image, view.slot, view.teacher) for view in views}) == len(views)
    assert any(view.image == "positive" for view in views) == settings_of(name).draws_positives()
    assert any(view.teacher for view in views) == (name != "moco")
    numbers = sorted({view.slot for view in views if view.teacher})
    assert numbers == list(range(len(numbers)))


def test_what_is_distilled_is_the_projection_but_for_compress(name):
    assert settings_of(name).layer == ("features" if name.startswith("compress") else "projection")


def test_only_views_that_a_network_sees_are_looked_at(name, teacher):
    learner = build(name, teacher)
    batch = step_input(learner, 0)
    looked_at = set()

    class Watched(dict):
        def __getitem__(self, key):
            looked_at.add(key)
            return super().__getitem__(key)

        def get(self, key, default=None):
            looked_at.add(key)
            return super().get(key, default)

    learner(replace(batch, images=Watched(batch.images)), torch.float32)
    assert looked_at == set(learner.method.views())


def test_gradients_reach_every_parameter_of_the_student(name, teacher):
    learner = build(name, teacher)
    _, gradients = train_step(learner, step_input(learner, 0))
    student = nn.Sequential(learner.backbone, learner.head)
    assert len(gradients) == len(list(student.parameters()))
    assert {id(p) for p in student.parameters()} == {id(p) for p in learner.parameters() if p.requires_grad}
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert not any(value.requires_grad for value in learner.buffers())


def test_the_state_is_student_average_and_queues_and_not_the_teacher(name, teacher):
    learner = build(name, teacher)
    parts = {key.partition(".")[0] for key in learner.state_dict()}
    expected = {"backbone", "queues"}
    expected |= {"head"} if len(learner.head) else set()
    expected |= {"momentum_encoder"} if settings_of(name).ema_momentum() is not None else set()
    assert parts == expected
    for queue in learner.method.queues():
        assert {f"queues.{queue}.keys", f"queues.{queue}.position"} <= set(learner.state_dict())
    of_teacher = {p.data_ptr() for network in (teacher.backbone, teacher.head) for p in network.parameters()}
    assert not of_teacher & {value.data_ptr() for value in learner.state_dict().values()}


def test_a_state_restores_the_next_step(name, teacher):
    learner = build(name, teacher)
    for number in range(3):
        train_step(learner, step_input(learner, number))
    other = build(name, teacher, seed=7)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    first, second = (train_step(each, step_input(each, 3))[0] for each in (learner, other))
    assert first == second
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in learner.state_dict().items())


def test_initial_weights_are_a_function_of_torchs_seed(name, teacher):
    digests = [digest_tensors(build(name, teacher, seed=seed).state_dict()) for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_a_step_draws_nothing_from_torchs_generator(name, teacher):
    learner = build(name, teacher)
    batch = step_input(learner, 0, epoch=5)
    before = torch.get_rng_state()
    train_step(learner, batch)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_is_one_of_the_logged_values_and_all_are_scalars(name, teacher):
    learner = build(name, teacher)
    values = learner(step_input(learner, 0, epoch=5), torch.float32)
    assert next(iter(values)) == "loss"
    assert all(value.shape == () and value.dtype == torch.float32 for value in values.values())


def test_queues_take_unit_vectors_after_the_step_and_only_once(name, teacher):
    learner = build(name, teacher)
    before = copy.deepcopy(learner.queues.state_dict())
    learner(step_input(learner, 0), torch.float32)
    assert all(torch.equal(value, before[key]) for key, value in learner.queues.state_dict().items())
    for _ in range(2):  # the second finds nothing left to do
        learner.after_step()
    for queue in learner.queues.values():
        assert int(queue.position) == BATCH
        torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(len(queue.keys)))


@pytest.mark.parametrize("size", [1, 4, 7])
def test_a_queue_may_be_smaller_than_a_batch(size, name, teacher):
    learner = build(name, teacher, queue_size=size)
    for number in range(3):
        values, _ = train_step(learner, step_input(learner, number, epoch=5))
        assert all(value == pytest.approx(value, abs=1e6) for value in values.values())  # finite
    assert all(len(queue.keys) == size for queue in learner.queues.values())


class Recorded:
    """A step that gives again what networks gave another one, outside of any autocast."""

    def __init__(self, step):
        self.step = step
        self.outputs = []
        for kind in ("student", "momentum", "teacher"):
            setattr(step, kind, self.recording(getattr(step, kind)))

    def recording(self, call):
        def recording(*arguments, **options):
            self.outputs.append(call(*arguments, **options))
            return self.outputs[-1]

        return recording

    def replay(self):
        outputs = iter(output.detach() for output in self.outputs)
        for kind in ("student", "momentum", "teacher"):
            setattr(self.step, kind, lambda *_arguments, **_options: next(outputs))
        return self.step


def test_under_bfloat16_networks_compute_in_it_and_losses_in_float32(name, teacher, monkeypatch):
    learner = build(name, teacher)
    recorded = []

    class RecordedStep(engine.TrainingStep):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            recorded.append(Recorded(self))

    monkeypatch.setattr(engine, "TrainingStep", RecordedStep)
    convolved = []
    for network in (learner.backbone, learner.momentum_encoder, teacher.backbone):
        first = next((module for module in (network or nn.Identity()).modules() if isinstance(module, nn.Conv2d)), None)
        if first is not None and (network is not teacher.backbone or name != "moco"):
            first.register_forward_hook(lambda _m, _i, output: convolved.append(output.dtype))
    before = {key: queue.keys.clone() for key, queue in learner.queues.items()}
    values = learner(step_input(learner, 0, epoch=5), torch.bfloat16)
    (record,) = recorded
    assert set(convolved) == {torch.bfloat16}
    assert len(convolved) == len(record.outputs) > 1
    for output in record.outputs:
        assert output.dtype == torch.float32
        torch.testing.assert_close(output.norm(dim=1), torch.ones(BATCH))
    assert all(torch.equal(queue.keys, before[key]) for key, queue in learner.queues.items())
    again = learner.method.loss(record.replay())
    assert {key: float(value) for key, value in again.items()} == {
        key: float(value.detach()) for key, value in values.items()
    }
    exact = learner(step_input(learner, 0, epoch=5), torch.float32)
    assert float(exact["loss"].detach()) != float(values["loss"].detach())
