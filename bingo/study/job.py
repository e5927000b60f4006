"""Base class of jobs: the settings of one run of a stage, which form its identity, and its files.

The command line of `bingo stage NAME` and the arguments that its rule passes are derived from the job class. Snakemake
sees the settings as one canonical JSON string and reruns the stage when the string changes. A key must therefore be
part of the settings if and only if it can change a result.
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
    """Role of a job's field that is not a setting."""

    INPUT = "a file or folder that is read"
    OUTPUT = "a file or folder that is written"
    OPTION = "an option that cannot change the result"


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
    """Settings and files of one job of a stage. Fields without a role are settings."""

    STAGE: ClassVar[str]
    """Name of the stage, of its rule, of its command, and of its module in `bingo.stages`."""
    STAGE_VERSION: ClassVar[int]
    """Increase it when the results of the stage change."""
    DEVICE: ClassVar[Device] = "none"
    """Processes that run networks: `none`, `one`, or several that share the work (`shared`)."""

    @classmethod
    def roles(cls) -> dict[str, Role]:
        """Return the role of each field that is not a setting."""
        fields = cls.model_fields.items()
        return {name: part for name, field in fields for part in field.metadata if isinstance(part, Role)}

    def irrelevant(self) -> Exclusion:
        """Return the settings that cannot change this job's result, in the form of pydantic's `exclude`."""
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything in the study that the result depends on, with defaults, and the version of the stage."""
        files: Exclusion = dict.fromkeys(self.roles(), True)
        return {"version": self.STAGE_VERSION, **self.model_dump(mode="json", exclude=files | self.irrelevant())}

    @property
    def identity(self) -> str:
        """The settings as canonical JSON with sorted keys."""
        return json.dumps(self.settings, sort_keys=True)

    @property
    def inputs(self) -> dict[str, str | list[str]]:
        """Input files by field, for Snakemake; empty fields are omitted."""
        inputs: dict[str, str | list[str]] = {}
        for name in [name for name, role in self.roles().items() if role is Role.INPUT]:
            value = getattr(self, name)
            if paths := [path for _, path in _files(value)]:
                inputs[name] = paths if isinstance(value, list | dict) else paths[0]
        return inputs

    def flags(self, *names: str) -> str:
        """Return fields as command-line options, such as ``--shards a.h5 --shards b.h5``; default: all with a role."""
        return " ".join(
            f"--{name.replace('_', '-')} {shlex.quote(key + path)}"
            for name in names or self.roles()
            for key, path in _files(getattr(self, name))
        )

    @classmethod
    def read(cls, settings: str, files: dict[str, Any]) -> Self:
        """Return the job for the arguments of a command line.

        Args:
            settings: `identity`, or @FILE with its content.
            files: all other fields.

        Raises:
            BingoError: the settings are not valid JSON or belong to another stage or version, or a value is not
                allowed.
        """
        path = Path(settings[1:]) if settings.startswith("@") else None
        try:
            values = json.loads(settings if path is None else path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            fault = "invalid JSON" if path is None else f"{path} cannot be read"
            raise BingoError(f"--settings: {fault} ({error}); run the stage through snakemake") from error
        is_current = isinstance(values, dict) and values.pop("version", None) == cls.STAGE_VERSION
        if not is_current or values.keys() & cls.roles():
            message = f"not the settings of stage {cls.STAGE}, version {cls.STAGE_VERSION}"
            raise BingoError(f"--settings: {message}; run the stage through snakemake")
        try:
            return cls.model_validate({**values, **files})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            field = where.partition(".")[0]
            is_option = field in cls.roles()
            key = f"--{field.replace('_', '-')}" if is_option else f"--settings: {where}".removesuffix(": ")
            raise BingoError(f"{key}: {first['msg']}") from error


def _files(value: Any) -> list[tuple[str, str]]:
    """Return the values of a field as pairs: `name=` (empty for unnamed values) and the value as text."""
    if isinstance(value, dict):
        return [(f"{name}={key}", path) for name, entry in value.items() for key, path in _files(entry)]
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [("", str(entry)) for entry in entries]
