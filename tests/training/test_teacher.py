import copy

import pytest
import torch

from bingo.artifacts.tensors import digest_tensors
from tests.methods.literal import METHODS, build, step_input, train_step, unit


def remembered(teacher):
    networks = (teacher.backbone, teacher.head)
    modes = [module.training for network in networks for module in network.modules()]
    return modes, [digest_tensors(network.state_dict()) for network in networks]


def literal_outputs(teacher, layer, images, training):
    """The outputs of a copy whose batch-norm is in train or eval mode."""
    backbone, head = (copy.deepcopy(network).train(training) for network in (teacher.backbone, teacher.head))
    with torch.no_grad():
        features = backbone(images)
        return unit(features if layer == "features" else head(features))


@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "moco"])
def test_a_teacher_gives_the_outputs_of_a_copy_in_its_mode_and_stays_as_it_is(name, batch_norm, teacher):
    model = build(name, teacher, batch_norm)
    before, seen = remembered(teacher), []
    outputs = model.teacher.outputs
    model.teacher.outputs = lambda *arguments: seen.append((arguments, outputs(*arguments))) or seen[-1][1]
    train_step(model, step_input(model, 0))
    assert remembered(teacher) == before
    assert not any(before[0])
    assert [view for (_, view, _, _), _ in seen] == [view for view in model.method.views().values() if view.teacher]
    for (layer, _, _, images), found in seen:
        expected = literal_outputs(teacher, layer, images, batch_norm == "batch")
        torch.testing.assert_close(unit(found), expected, rtol=1e-4, atol=1e-5)
        other = literal_outputs(teacher, layer, images, batch_norm != "batch")
        assert not torch.allclose(unit(found), other, atol=1e-2)
        assert model.teacher.width(layer) == found.shape[1]
    for source, queue in zip(model.method.queues().values(), model.queues.values(), strict=True):
        if source == "teacher":
            torch.testing.assert_close(queue.keys[: len(images)], unit(seen[0][1]))
