from collections import deque

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.models.queue import Queue


def oldest_first(queue):
    return queue.keys.roll(-int(queue.position), 0)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 12), batches=st.lists(st.integers(1, 30), max_size=6))
def test_queue_holds_the_last_keys_in_order(size, batches):
    queue = Queue(size, 3)
    expected = deque(queue.keys.clone(), maxlen=size)
    for batch in batches:
        keys = torch.randn(batch, 3)
        queue.enqueue(keys)
        expected.extend(keys)
        assert torch.equal(oldest_first(queue), torch.stack(list(expected)))


def test_queue_starts_with_unit_vectors_drawn_from_the_global_generator():
    torch.manual_seed(3)
    first = Queue(50, 16)
    torch.manual_seed(3)
    assert torch.equal(first.keys, Queue(50, 16).keys)
    torch.testing.assert_close(first.keys.norm(dim=1), torch.ones(50))
    assert len(first.keys.unique(dim=0)) == 50


def test_queue_is_float32_state_that_is_not_trained_and_keeps_no_graph():
    queue = Queue(4, 2)
    keys = torch.randn(3, 2, requires_grad=True)
    queue.enqueue((keys * 2).bfloat16())
    assert set(queue.state_dict()) == {"keys", "position"}
    assert not list(queue.parameters())
    assert not queue.keys.requires_grad
    assert queue.keys.dtype == torch.float32
    assert torch.equal(queue.keys[:3], (2 * keys).bfloat16().float())
