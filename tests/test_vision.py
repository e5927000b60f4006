"""torchvision and the compiler whose import it is spared: each in a process of its own, as imports happen once."""

import subprocess
import sys

import pytest

USES = """
from torchvision import tv_tensors
print(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]), 2))
print(sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu"))
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)))
print(torch.compiler.disable(lambda x: x + 1)(1), torch.compiler.disable.__module__)
print(tv_tensors.wrap(torch.ones(1, 4, 4), like=tv_tensors.Image(torch.zeros(1, 2, 2))))
print(torch._dynamo.utils is sys.modules["torch._dynamo.utils"], torch._dynamo.utils.same([1], [1]))
"""
ASKS = """
class Asks:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            from torch._dynamo.utils import same
sys.meta_path.insert(0, Asks())
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def plain():
    return run(f"import sys, torch, torchvision\n{USES}")


@pytest.mark.parametrize(
    "before", ["", "import torch._dynamo", ASKS], ids=["not loaded", "loaded before", "loaded meanwhile"]
)
def test_all_of_it_works_as_after_a_plain_import(plain, before):
    assert run(f"import sys, torch\n{before}\nimport bingo.vision, torchvision\n{USES}") == plain != ""
