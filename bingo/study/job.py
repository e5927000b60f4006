"""What a job of a stage is: settings, which are its identity, and files.

From a job's class come the command line of `bingo stage NAME` and what its rule hands to it. Snakemake sees the
settings as one canonical JSON string and reruns the stage when the string changes. So a key that cannot change a result
must not be in them, and a key that can must be.
"""

import json
import shlex
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ValidationError

from bingo.errors import BingoError
from bingo.study.sections import StrictModel


class Role(Enum):
    """What a field of a job is that is no setting."""

    INPUT = "a file or folder that is read"
    OUTPUT = "a file or folder that is written"
    OPTION = "something else that cannot change the result"


Input = Annotated[Path, Role.INPUT]
OptionalInput = Annotated[Path | None, Role.INPUT]
Inputs = Annotated[list[Path], Role.INPUT]
NamedInputs = Annotated[dict[str, Path], Role.INPUT]
Output = Annotated[Path, Role.OUTPUT]
Outputs = Annotated[list[Path], Role.OUTPUT]
Text = Annotated[str, Role.OPTION]
OptionalText = Annotated[str | None, Role.OPTION]

Exclusion = dict[str, Any]
Device = Literal["none", "one", "shared"]


class Job(StrictModel):
    """Settings and files of one job of one stage; fields without a role are its settings."""

    STAGE: ClassVar[str]
    """The stage's name: its rule's, its command's, and that of its module in `bingo.stages`."""
    STAGE_VERSION: ClassVar[int]
    """Raised when the results of the stage change meaning."""
    DEVICE: ClassVar[Device] = "none"
    """Whether networks run: in no process, in one, or in as many as share the work."""

    @classmethod
    def roles(cls) -> dict[str, Role]:
        """Return the role of each field that is no setting."""
        fields = cls.model_fields.items()
        return {name: part for name, field in fields for part in field.metadata if isinstance(part, Role)}

    def irrelevant(self) -> Exclusion:
        """Return keys of the settings that cannot change this job's result, as pydantic's `exclude`."""
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """On what of the study the result depends, defaults filled in, and the stage's version."""
        files: Exclusion = dict.fromkeys(self.roles(), True)
        return {"version": self.STAGE_VERSION, **self.model_dump(mode="json", exclude=files | self.irrelevant())}

    @property
    def identity(self) -> str:
        """The settings as canonical JSON: sorted keys."""
        return json.dumps(self.settings, sort_keys=True)

    @property
    def inputs(self) -> dict[str, str | list[str]]:
        """The files that are read, by field, as Snakemake takes them; fields without any are left out."""
        found: dict[str, str | list[str]] = {}
        for name in [name for name, role in self.roles().items() if role is Role.INPUT]:
            value = getattr(self, name)
            if paths := [path for _, path in _files(value)]:
                found[name] = paths if isinstance(value, list | dict) else paths[0]
        return found

    def flags(self, *names: str) -> str:
        """Return fields as command-line options, ``--shards a.h5 --shards b.h5``; all but settings by default."""
        return " ".join(
            f"--{name.replace('_', '-')} {shlex.quote(key + path)}"
            for name in names or self.roles()
            for key, path in _files(getattr(self, name))
        )

    @classmethod
    def read(cls, settings: str, files: dict[str, Any]) -> Self:
        """Return the job of a command line.

        Args:
            settings: `identity`, or @FILE that holds it.
            files: the other fields.

        Raises:
            BingoError: the settings are no JSON, or not those of this stage and its version, or a field has a value
                that it cannot have.
        """
        path = Path(settings[1:]) if settings.startswith("@") else None
        try:
            given = json.loads(settings if path is None else path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            fault = "no JSON" if path is None else f"{path} cannot be read"
            raise BingoError(f"--settings: {fault} ({error})") from error
        if not isinstance(given, dict) or given.pop("version", None) != cls.STAGE_VERSION or given.keys() & cls.roles():
            raise BingoError(f"--settings: are no settings of {cls.STAGE}, version {cls.STAGE_VERSION}")
        try:
            return cls.model_validate({**given, **files})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            field = where.partition(".")[0]
            is_option = field in cls.roles()
            key = f"--{field.replace('_', '-')}" if is_option else f"--settings: {where}".removesuffix(": ")
            raise BingoError(f"{key}: {first['msg']}") from error


def _files(value: Any) -> list[tuple[str, str]]:
    """Return the files of a field, or what else it holds, each behind its name and `=` where it has one."""
    if isinstance(value, dict):
        return [(f"{name}={key}", path) for name, entry in value.items() for key, path in _files(entry)]
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [("", str(entry)) for entry in entries]
