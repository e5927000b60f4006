import pytest
import torch

from bingo.errors import BingoError
from bingo.importers.load import load_checkpoint

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def refusal():
    """Import a part that must be refused, and return the line that says why."""

    def import_it(path, format=None, part=None, architecture=None):
        with pytest.raises(BingoError) as caught:
            load_checkpoint(path, format, part, architecture)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return message.removeprefix(f"{path}: ")

    return import_it
