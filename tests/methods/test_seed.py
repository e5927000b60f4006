import pytest
import torch

from .literal import Literal, build, descend, require_same_step, step_input, train_step


def literal_step(literal, images, teacher_temperature):
    """SEED's equations 3 to 5: the own teacher embedding at place 0, then the queue."""
    student, target = literal.embed(images["image"]), literal.target(images["image"])
    name, queue = next(iter(literal.queues.items()))
    terms = []
    for s, t in zip(student.double(), target.double(), strict=True):
        others = [t, *(n.double() for n in queue)]
        s_logits = torch.stack([s @ d for d in others]) / 0.2
        t_logits = torch.stack([t @ d for d in others]) / teacher_temperature
        p = torch.exp(t_logits - t_logits.max())
        terms.append(-(p / p.sum() * (s_logits - torch.log(torch.exp(s_logits).sum()))).sum())
    loss = sum(terms) / len(terms)
    gradients = descend(literal.student, loss)
    literal.enqueue(name, target)
    return {"loss": float(loss.detach())}, gradients


# At 0.5 the whole queue matters, at 1e-4 the own embedding alone.
@pytest.mark.parametrize("teacher_temperature", [0.5, 0.01, 1e-4])
def test_several_steps_are_those_of_a_literal_transcription(teacher_temperature, teacher):
    learner = build("seed", teacher, teacher_temperature=teacher_temperature)
    literal = Literal(learner, teacher)
    for number in range(5):  # the queue wraps round
        batch = step_input(learner, number)
        found = train_step(learner, batch)
        expected = literal_step(literal, batch.images, teacher_temperature)
        # In float32 a logit of 1 / 1e-4 has steps of 0.001, which show in the value.
        require_same_step(learner, literal, found, expected, 2e-4 if teacher_temperature > 1e-3 else 5e-3)


def test_one_view_is_seen_by_both_networks(teacher):
    learner = build("seed", teacher)
    ((name, view),) = learner.method.views().items()
    assert (view.image, view.student, view.teacher) == ("anchor", True, True)
    seen = []
    batch = step_input(learner, 0)
    learner.backbone.register_forward_pre_hook(lambda _network, inputs: seen.append(inputs[0]))
    outputs = learner.teacher.outputs
    learner.teacher.outputs = lambda *arguments: (seen.append(arguments[-1]), outputs(*arguments))[1]
    learner(batch, torch.float32)
    assert [images is batch.images[name] for images in seen] == [True, True]


def test_the_students_head_is_as_wide_as_its_backbone_unless_named(teacher):
    learner = build("seed", teacher)
    assert [layer.out_features for layer in learner.head[::2]] == [32, 12]
    assert build("seed", teacher, head={"hidden": 9}).head[0].out_features == 9
