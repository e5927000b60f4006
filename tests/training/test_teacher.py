import copy

import pytest
import torch

from bingo.artifacts.tensors import digest_tensors
from bingo.training.teacher import OnlineTeacher

from .literal import METHODS, SIDE, build, settings_of, step_input, train_step, unit

DISTILLING = [name for name in METHODS if name != "moco"]


def remembered(teacher):
    networks = (teacher.backbone, teacher.head)
    modes = [module.training for network in networks for module in network.modules()]
    return modes, [digest_tensors(network.state_dict()) for network in networks]


def literal_outputs(teacher, layer, images, training):
    """The outputs of a copy, whose batch-norm is in train or eval mode."""
    backbone, head = (copy.deepcopy(network).train(training) for network in (teacher.backbone, teacher.head))
    with torch.no_grad():
        features = backbone(images)
        return unit(features if layer == "features" else head(features))


@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
@pytest.mark.parametrize("name", DISTILLING)
def test_a_step_leaves_the_teacher_untouched_and_in_eval_mode(name, batch_norm, teacher):
    learner = build(name, teacher, batch_norm)
    before = remembered(teacher)
    for number in range(2):
        train_step(learner.train(), step_input(learner, number))
        assert remembered(teacher) == before
    assert not any(before[0])
    for network in (teacher.backbone, teacher.head):
        assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
@pytest.mark.parametrize("name", DISTILLING)
def test_what_joins_the_teachers_queue_is_the_output_of_a_copy_in_that_mode(name, batch_norm, teacher):
    learner = build(name, teacher, batch_norm)
    batch = step_input(learner, 0)
    seen = []
    outputs = learner.teacher.outputs
    learner.teacher.outputs = lambda *arguments: seen.append((arguments, outputs(*arguments))) or seen[-1][1]
    train_step(learner, batch)
    views = [view for view in learner.method.views().values() if view.teacher]
    assert [arguments[1] for arguments, _ in seen] == views
    for (layer, _, _, images), found in seen:
        assert layer == ("features" if name.startswith("compress") else "projection")
        expected = literal_outputs(teacher, layer, images, batch_norm == "batch")
        torch.testing.assert_close(unit(found), expected, rtol=1e-4, atol=1e-5)
        other = literal_outputs(teacher, layer, images, batch_norm != "batch")
        assert not torch.allclose(unit(found), other, atol=1e-2)
    for source, queue in zip(learner.method.queues().values(), learner.queues.values(), strict=True):
        if source == "teacher":
            torch.testing.assert_close(queue.keys[: len(images)], unit(seen[0][1]))


def test_in_eval_mode_an_output_does_not_depend_on_the_rest_of_its_batch_and_by_the_batch_it_does(teacher):
    images, view = torch.randn(6, 3, SIDE, SIDE), settings_of("seed").views()["image"]
    for batch_norm, alike in (("eval", True), ("batch", False)):
        source = OnlineTeacher(teacher, batch_norm)
        whole, part = (source.outputs("projection", view, None, images[rows]) for rows in (slice(None), slice(3)))
        assert torch.allclose(whole[:3], part, atol=1e-4) == alike


def test_the_width_of_the_outputs_is_that_of_the_layer(teacher):
    source, view = OnlineTeacher(teacher, "eval"), settings_of("seed").views()["image"]
    for layer, width in (("features", 16), ("projection", 12)):
        assert source.width(layer) == width
        assert source.outputs(layer, view, None, torch.randn(2, 3, SIDE, SIDE)).shape == (2, width)
