import math
from itertools import combinations

import pytest
import torch
from scipy import stats

from bingo.philox import Stream, uniform

from .literal import (
    SIDE,
    build,
    cross_entropy,
    descend,
    require_literal_steps,
    step_input,
)

TEMPERATURE = 0.2
TERMS = ("intra", "inter", "cutmix")
# All subsets in the epochs with inter pairs and in those without, where inter alone is refused.
CASES = [
    pytest.param(list(subset), inter_free, id=f"{'+'.join(subset)}{'-at-the-start' if inter_free else ''}")
    for count in (1, 2, 3)
    for subset in combinations(TERMS, count)
    for inter_free in (True, False)
    if (subset, inter_free) != (("inter",), True)
]


def literal_cutmix(anchor, positive, batch):
    """CutMix pixel by pixel: one box for the batch; and lambda, the share of pixels that stay the anchor's."""
    u, y, x = uniform(batch.seed, Stream.CUTMIX, [batch.step], batch.epoch, 0, 3)[0].tolist()
    half = int(SIDE * math.sqrt(1 - stats.beta(2, 2).ppf(u))) // 2
    mixed, left = anchor.clone(), 0
    for row in range(SIDE):
        for column in range(SIDE):
            inside_rows = int(y * SIDE) - half <= row < int(y * SIDE) + half
            if inside_rows and int(x * SIDE) - half <= column < int(x * SIDE) + half:
                mixed[:, :, row, column] = positive[:, :, row, column]
            else:
                left += 1
    return mixed, left / SIDE**2


def literal_step(literal, batch, terms, inter_free):
    """The reference's formula; the names of its cross-entropies are student's view, teacher's view."""
    images = batch.images
    target = {"a": literal.target(images["anchor_target"]), "p": literal.target(images["positive_target"])}
    ((name, queue),) = literal.queues.items()
    with_inter = "inter" in terms and not inter_free
    losses, views = {}, {}
    if "intra" in terms or with_inter:
        views = {"a": literal.embed(images["anchor"]), "p": literal.embed(images["positive"])}
    statistics = {key: value.clone() for key, value in literal.student.named_buffers()}
    if "cutmix" in terms:
        mixed, share = literal_cutmix(images["anchor"], images["positive"], batch)
        views["m"] = literal.embed(mixed)

    def ce(student, teacher):
        return cross_entropy(views[student], target[teacher], queue, TEMPERATURE)

    intra, inter = (lambda: ce("a", "a") + ce("p", "p")), (lambda: ce("a", "p") + ce("p", "a"))
    if "intra" in terms and with_inter:
        losses |= {"intra": 1 / 2 * intra(), "inter": 1 / 2 * inter()}
    elif "intra" in terms:
        losses["intra"] = intra()
    elif with_inter:
        losses["inter"] = inter()
    if "cutmix" in terms:
        losses["cutmix"] = share * ce("m", "a") + (1 - share) * ce("m", "p")
    loss = 1 / 3 * sum(losses.values())
    gradients = descend(literal.student, loss)
    # What CutMix images did to batch-norm's running statistics is undone.
    for key, value in literal.student.named_buffers():
        value.copy_(statistics[key])
    literal.enqueue(name, target["a"])
    return {"loss": loss, **losses}, gradients


@pytest.mark.parametrize(("terms", "inter_free"), CASES)
def test_several_steps_are_those_of_a_literal_transcription(terms, inter_free, teacher):
    model = build("official", teacher, terms=terms, inter_free_epochs=2 if terms != ["inter"] else 0)
    epoch = 1 if inter_free else 2  # the last and the first of their kind
    require_literal_steps(model, teacher, lambda *step: literal_step(*step, terms, inter_free), epoch, seed=5)


def test_epochs_0_to_10_have_no_inter_pairs_unless_told_otherwise(teacher):
    model = build("official", teacher, inter_free_epochs=None)
    for epoch, inter in ((0, False), (10, False), (11, True), (199, True)):
        values = model(step_input(model, 0, epoch), torch.float32)
        assert ("inter" in values) == inter
    model = build("official", teacher, inter_free_epochs=0)
    assert "inter" in model(step_input(model, 0, 0), torch.float32)
