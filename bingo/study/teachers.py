"""Teachers of a study: the settings under `teachers`."""

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
    """A pretrained backbone. `bingo inspect FILE` shows what a checkpoint contains and whether it can be used."""

    checkpoint: str
    """Checkpoint file."""
    format: CheckpointFormat | None = None
    """Project that wrote the checkpoint; null to detect it. `native` is this project, including its students."""
    part: str | None = None
    """Network to use if the checkpoint has several; null for the one that its authors evaluate."""
    architecture: Architecture | None = None
    """`timm/<name>` if the architecture does not follow from the weights; null to detect it."""


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
