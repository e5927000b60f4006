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
from bingo.study.sections import Strict


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
Label = Annotated[str, Role.OPTION]
OptionalLabel = Annotated[str | None, Role.OPTION]

Exclusion = dict[str, Any]
Device = Literal["none", "one", "shared"]


class Job(Strict):
    """Settings and files of one job of one stage; fields without a role are its settings."""

    STAGE: ClassVar[str]
    """The stage's name: its rule's, its command's, and that of its module in `bingo.stages`."""
    STAGE_VERSION: ClassVar[int]
    """Raised when the results of the stage change meaning."""
    DEVICE: ClassVar[Device] = "none"
    """Whether networks run: in no process, in one, or in as many as share the work."""

    @property
    def settings(self) -> dict[str, Any]:
        """On what of the study the result depends, defaults filled in, and the stage's version."""
        files: Exclusion = dict.fromkeys(self.roles(), True)
        return {"version": self.STAGE_VERSION, **self.model_dump(mode="json", exclude=files | self.irrelevant())}

    def irrelevant(self) -> Exclusion:
        """Return keys of the settings that cannot change this job's result, as pydantic's `exclude`."""
        return {}

    @property
    def identity(self) -> str:
        """The settings as canonical JSON: sorted keys."""
        return json.dumps(self.settings, sort_keys=True)

    @property
    def inputs(self) -> dict[str, str | list[str]]:
        """The files that are read, those left away that this job does not need, as Snakemake takes them."""
        return {
            name: files for name, role in self.roles().items() if role is Role.INPUT and (files := self._files(name))
        }

    def flags(self, *names: str) -> str:
        """Return fields as options of the command line: ``--shards a.h5 --shards b.h5``; all inputs by default."""
        return " ".join(
            f"--{name.replace('_', '-')} {shlex.quote(value)}"
            for name in names or self.inputs
            for value in _values(getattr(self, name))
        )

    def _files(self, name: str) -> str | list[str]:
        value = getattr(self, name)
        if isinstance(value, dict):
            return [str(path) for path in value.values()]
        return [str(path) for path in value] if isinstance(value, list) else "" if value is None else str(value)

    @classmethod
    def roles(cls) -> dict[str, Role]:
        """Return the role of each field that is no setting."""
        roles = {
            name: next((m for m in f.metadata if isinstance(m, Role)), None) for name, f in cls.model_fields.items()
        }
        return {name: role for name, role in roles.items() if role is not None}

    @classmethod
    def read(cls, settings: str, files: dict[str, Any]) -> Self:
        """Return the job of a command line.

        Args:
            settings: `identity`, or @FILE that holds it.
            files: the other fields.

        Raises:
            BingoError: the settings are no JSON, or not those of this stage and its version.
        """
        try:
            content = Path(settings[1:]).read_text(encoding="utf-8") if settings.startswith("@") else settings
            given = json.loads(content)
        except (OSError, ValueError) as error:
            raise BingoError(f"--settings: {settings[1:] if settings[:1] == '@' else 'no JSON'} ({error})") from error
        if not isinstance(given, dict) or given.pop("version", None) != cls.STAGE_VERSION:
            raise BingoError(f"--settings: are no settings of {cls.STAGE}, version {cls.STAGE_VERSION}")
        try:
            return cls.model_validate_json(json.dumps({**given, **files}, default=str))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            option = where.partition(".")[0]
            key = f"--{option.replace('_', '-')}" if option in cls.roles() else f"--settings: {where}"
            raise BingoError(f"{key}{': ' if where else ''}{fault['msg']}") from error


def _values(value: Any) -> list[str]:
    """Return a field's values as the command line has them."""
    if isinstance(value, dict):
        pairs = [
            (name, path) for name, paths in value.items() for path in (paths if isinstance(paths, list) else [paths])
        ]
        return [f"{name}={path}" for name, path in pairs]
    return [str(entry) for entry in (value if isinstance(value, list) else [] if value is None else [value])]
