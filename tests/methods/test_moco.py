import torch
import torch.nn.functional as F

from .literal import build, descend, require_literal_steps

TEMPERATURE, MOMENTUM = 0.2, 0.9


def literal_step(literal, batch):
    """MoCo's Algorithm 1, line by line: two separate networks, a list for a queue, the whole logit matrix."""
    q = literal.embed(batch.images["query"])
    literal.move_average(MOMENTUM)
    k = literal.key(batch.images["key"])
    ((name, queue),) = literal.queues.items()
    positive = torch.stack([q[i] @ k[i] for i in range(len(q))])[:, None]
    negative = torch.stack([torch.stack([q[i] @ n for n in queue]) for i in range(len(q))])
    loss = F.cross_entropy(torch.cat([positive, negative], 1) / TEMPERATURE, torch.zeros(len(q), dtype=torch.int64))
    gradients = descend(literal.student, loss)
    literal.enqueue(name, k)
    return {"loss": loss}, gradients


def test_several_steps_are_those_of_a_literal_transcription():
    require_literal_steps(build("moco", None), None, literal_step)
