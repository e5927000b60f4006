import pytest
import torch

from bingo.errors import BingoError
from bingo.importers.load import load_checkpoint

from .source_networks import encoder, mlp, queue, small18

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth.tar"


@pytest.fixture
def moco_state():
    """A state dict of MoCo's query network alone."""
    return {**encoder("encoder_q.", small18(), mlp(64, 24, 16)), **queue()}


@pytest.fixture
def refusal():
    """Import a network that must be refused, and return the error's line without the path that begins it."""

    def import_it(path, format=None, part=None, architecture=None):
        with pytest.raises(BingoError, match=f"^{path}: ") as caught:
            load_checkpoint(path, format, part, architecture)
        return str(caught.value).removeprefix(f"{path}: ")

    return import_it
