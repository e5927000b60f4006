"""What a study distils: the keys of `teachers`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Discriminator, Tag

from bingo.study.method import TEACHERS
from bingo.study.sections import Architecture, StrictModel

CheckpointFormat = Literal[
    "moco",
    "swav",
    "bingo",
    "seed",
    "disco",
    "compress",
    "dino",
    "torchvision",
    "timm",
    "lightly",
    "solo-learn",
    "native",
]


class ImportedTeacher(StrictModel):
    """A backbone that somebody has trained; `bingo inspect FILE` says what a file is and whether it can be used."""

    checkpoint: str
    """File of weights."""
    format: CheckpointFormat | None = None
    """Who wrote it; null to find out. `native`: this project's own, a student's too."""
    part: str | None = None
    """Which network, of a file that holds several; null for the one that its authors evaluate."""
    architecture: Architecture | None = None
    """`timm/<name>`, for a network that its shapes do not tell; null to find out."""


def _teacher_kind(value: Any) -> str:
    imported = "checkpoint" in value if isinstance(value, dict) else isinstance(value, ImportedTeacher)
    return "imported" if imported else "trained"


if TYPE_CHECKING:
    from bingo.study.method import Method

    TrainedTeacher = Method
    Teacher = Method | ImportedTeacher
else:
    TrainedTeacher = Union[tuple(TEACHERS)]  # noqa: UP007
    Teacher = Annotated[
        Annotated[Union[tuple(TEACHERS)], Tag("trained")]  # noqa: UP007
        | Annotated[ImportedTeacher, Tag("imported")],
        Discriminator(_teacher_kind),
    ]
