import pytest

from .literal import BATCH, build, cross_entropy, descend, require_literal_steps

MOMENTUM = 0.9


def literal_step(literal, batch, weight):
    """CE(s(x1), s_EMA(x2)) + w (|T(x1) - s(x1)|^2 + |T(x2) - s(x2)|^2), each a mean over the batch."""
    images = batch.images
    first, second = literal.embed(images["query"]), literal.embed(images["key"])
    literal.move_average(MOMENTUM)
    key = literal.key(images["key"])
    ((name, queue),) = literal.queues.items()
    contrast = cross_entropy(first, key, queue, 0.2)
    distance = 0
    for student, view in ((first, "query"), (second, "key")):
        for s, t in zip(student.double(), literal.target(images[view]).double(), strict=True):
            distance = distance + ((t - s) ** 2).sum() / BATCH
    loss = contrast + weight * distance
    gradients = descend(literal.student, loss)
    literal.enqueue(name, key)
    return {"loss": loss, "contrast": contrast, "distance": distance}, gradients


@pytest.mark.parametrize("weight", [0.0, 3.0, 32.0])
def test_several_steps_are_those_of_a_literal_transcription(weight, teacher):
    model = build("disco", teacher, distance_weight=weight)
    require_literal_steps(model, teacher, lambda literal, batch: literal_step(literal, batch, weight))
