import pytest
import torch

from .literal import build, descend, require_literal_steps


def literal_step(literal, batch, teacher_temperature):
    """SEED's equations 3 to 5: the image's own teacher embedding at place 0, then the queue."""
    student, target = literal.embed(batch.images["image"]), literal.target(batch.images["image"])
    ((name, queue),) = literal.queues.items()
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
    return {"loss": loss}, gradients


# At 0.5 the whole queue matters, at 1e-4 only the own embedding. In float32 a logit of 1 / 1e-4 has steps of 0.001,
# which show in the value.
@pytest.mark.parametrize(("teacher_temperature", "tolerance"), [(0.5, 2e-4), (0.01, 2e-4), (1e-4, 5e-3)])
def test_several_steps_are_those_of_a_literal_transcription(teacher_temperature, tolerance, teacher):
    model = build("seed", teacher, teacher_temperature=teacher_temperature)
    require_literal_steps(
        model, teacher, lambda literal, batch: literal_step(literal, batch, teacher_temperature), tolerance=tolerance
    )
