import pytest
import torch
from torch import nn

from bingo.artifacts.tensors import write_tensors
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import write_teacher
from bingo.study.sections import Backbone
from tests.importers.source_networks import settled

torch.set_num_threads(1)

INPUT = {"size": 64, "mean": [0.3, 0.4, 0.5], "std": [0.1, 0.2, 0.3], "decoder": "cpu"}


def trained_looking(network):
    """Give batch-norm scales, and the statistics of images, so that features tell images apart."""
    settled(network)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 64, 64))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval().requires_grad_(False)


@pytest.fixture
def student(tmp_path):
    """Write a student with the batch-norm statistics of a trained network; return (network, file)."""

    def write(path=tmp_path / "backbone.safetensors", inputs=None, size=64, **spec):
        torch.manual_seed(0)
        backbone = Backbone(**spec)
        network = trained_looking(build_backbone(backbone))
        provenance = {
            "stage": "student",
            "version": 7,
            "settings": {"preprocessing": {**INPUT, "size": size}, "seed": 3},
            "inputs": inputs or {},
            "packages": {"torch": "2.0.1"},
            "seed": 3,
        }
        metadata = {"backbone": backbone.model_dump(), "method": "bingo", "provenance": provenance}
        write_tensors(path, network.state_dict(), metadata)
        return network, path

    return write


@pytest.fixture
def teacher(student, tmp_path):
    """Write a network with a projection head; return (network, file)."""

    def write(**spec):
        network, _ = student(**spec)
        path, head = (
            tmp_path / "teacher.safetensors",
            {"0.weight": torch.randn(4, network.dim), "0.bias": torch.ones(4)},
        )
        write_teacher(path, Backbone(**spec), network.state_dict(), head, {"method": "moco"})
        return network, path

    return write


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def same():
    """Compare features, which are to differ between images, within what float32 rounds."""

    def compare(found, expected):
        largest = expected.abs().max()
        assert (expected[0] - expected[1]).abs().max() > 0.01 * largest
        assert (torch.as_tensor(found) - expected).abs().max() < 2e-4 * largest

    return compare
