import pytest
import torch
import torch.nn.functional as F

torch.set_num_threads(1)


@pytest.fixture
def units():
    """Draw rows of unit length, the same ones in every run."""
    generator = torch.Generator().manual_seed(7)

    def draw(*shape, dtype=torch.float64):
        return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).to(dtype)

    return draw


@pytest.fixture
def gradients():
    """Return a loss's value and its gradients to some of its tensors: (loss, tensors) -> [value, *gradients]."""

    def gradients(loss, tensors, wanted=None):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        value = loss(*leaves)
        chosen = leaves if wanted is None else [leaves[i] for i in wanted]
        return [value.detach(), *torch.autograd.grad(value, chosen)]

    return gradients


@pytest.fixture
def close():
    """Compare values and gradients of a loss in any dtype with those of a float64 reference, on their own scale."""

    def close(found, expected, tolerance):
        for ours, theirs in zip(found, expected, strict=True):
            scale = max(1.0, float(theirs.abs().max()))
            torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance * scale)

    return close
