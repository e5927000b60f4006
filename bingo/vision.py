"""torchvision, imported without torch's compiler, whose import takes longer than that of all the rest."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo.utils"


def _load(name: str) -> Any:
    """Return something of the compiler, which takes its stand-in's place; special names are asked for by `import`."""
    if name.startswith("__"):
        raise AttributeError(name)
    if sys.modules.get(_COMPILER) is _stand_in:
        del sys.modules[_COMPILER]
    return getattr(import_module(_COMPILER), name)


# torchvision's RoI align imports one function of the compiler; its tensor types mark one function with another.
_stand_in, _disable = ModuleType(_COMPILER), torch.compiler.disable
vars(_stand_in).update(is_compile_supported=lambda device: _load("is_compile_supported")(device), __getattr__=_load)
try:
    if _COMPILER not in sys.modules:
        sys.modules[_COMPILER] = _stand_in
        # torch's own, which loads the compiler at the first call
        torch.compiler.disable = torch._disable_dynamo  # type: ignore[assignment]
    import torchvision
    from torchvision.models import resnet
    from torchvision.transforms.v2 import functional as V
finally:
    torch.compiler.disable = _disable
    if sys.modules.get(_COMPILER) is _stand_in:
        del sys.modules[_COMPILER]

__all__ = ["V", "resnet", "torchvision"]
