"""The schema of a study file: the only definition of its keys, defaults, ranges and cross-references.

`Study` is one YAML file; config/schema.json is generated from it. Its sections are in `images`, `teachers` and `bags`,
shared ones in `sections`, and the settings of each method in `bingo.methods`. The settings of single stages are in
`jobs` and `report_jobs`. Does not import torch: Snakemake reads this at every start.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, Union, get_args

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from bingo.errors import BingoError, nearest
from bingo.study.bags import Bag
from bingo.study.images import SOURCES, CocoSet, Data, ImageSet, Target, TorchvisionSet
from bingo.study.method import STUDENTS, Distillation, Method
from bingo.study.protocols import DETECTION_PROTOCOLS, PROTOCOLS, TRANSFER_PROTOCOLS, split_name
from bingo.study.sections import StrictModel, setting_error
from bingo.study.teachers import Teacher

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]


if TYPE_CHECKING:
    Student = Method
else:
    Student = Annotated[Union[tuple(STUDENTS)], Field(discriminator="method")]  # noqa: UP007


class Table(StrictModel):
    """A table of the study's results."""

    title: str
    """Heading in Markdown, caption in LaTeX."""
    students: list[str] | None = None
    """Students to show, in this order, below their teachers; null for all students and teachers."""
    teachers: bool = True
    """Also show the teachers of the students."""
    evaluations: list[str] | None = None
    """Evaluations to show, in this order; null for all of the study's `evaluations`. Evaluations that are not listed
    there run only for the networks of this table."""
    published: str | None = None
    """CSV of published numbers for comparison, with the columns method, student (architecture), teacher (name in this
    study), protocol (`linear`, `knn-10`, ...), metric, published and source. Numbers without a matching network are
    also shown."""


class Study(StrictModel):
    """One study: data, networks and evaluations."""

    study: Name
    """Name of the study. Results are written to results/<study>/."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(default=[0], min_length=1)
    """Seeds; each student is trained and evaluated once per seed."""
    data: Data
    """Dataset of the study."""
    teachers: dict[Name, Teacher] = Field(default={})
    """Teachers by name."""
    bags: dict[Name, Bag] = Field(default={})
    """Bags by name."""
    students: dict[Name, Student] = Field(default={})
    """Students by name."""
    transfer: dict[Name, Target] = Field(default={})
    """Other datasets to evaluate on, by name; use them as `<name>-<protocol>`. Torchvision's datasets need no entry."""
    evaluations: list[str] = Field(default=[])
    """Protocols for the evaluation of every teacher and student."""
    tables: dict[Name, Table] = Field(default={})
    """Tables by name."""

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        def require(path: str, name: str, kind: str, known: Mapping[str, Any]) -> None:
            if name not in known:
                raise setting_error(f"{path}: there is no '{name}' among the {kind}{nearest(name, known)}")

        for name, bag in self.bags.items():
            if (teacher := bag.named_teacher()) is not None:
                require(f"bags.{name}.teacher", teacher, "teachers", self.teachers)
        for name, entry in self.students.items():
            if isinstance(entry, Distillation):
                if entry.teacher is not None:
                    require(f"students.{name}.teacher", entry.teacher, "teachers", self.teachers)
                if (bags := entry.named_bags()) is not None:
                    require(f"students.{name}.bags", bags, "bags", self.bags)
                self._require_teacher(name, entry)
        self._require_protocols("evaluations", self.evaluations)
        for name, table in self.tables.items():
            for student_name in table.students or ():
                require(f"tables.{name}.students", student_name, "students", self.students)
            self._require_protocols(f"tables.{name}.evaluations", table.evaluations or [])
        if not self.teachers and not self.students:
            raise setting_error("a study needs an entry in teachers or in students")
        if duplicates := sorted(set(self.teachers) & set(self.students)):
            raise setting_error(f"'{duplicates[0]}' names both a teacher and a student; rename one")
        lists: dict[str, list[Any]] = {"seeds": list(self.seeds), "evaluations": list(self.evaluations)}
        for name, table in self.tables.items():
            lists[f"tables.{name}.students"] = table.students or []
            lists[f"tables.{name}.evaluations"] = table.evaluations or []
        for key, values in lists.items():
            if len(set(values)) < len(values):
                raise setting_error(f"{key}: a value is repeated; remove it")
        return self

    def _require_protocols(self, path: str, evaluations: list[str]) -> None:
        for name in evaluations:
            target, protocol = self.split_evaluation(name)
            known = self._protocols(target)
            if protocol not in known:
                hint = nearest(protocol, known)
                if not target:  # the name of the dataset may be misspelt
                    sets = [*self.transfer, *get_args(SOURCES)]
                    match = nearest(name, [f"{other}-{p}" for other in sets for p in self._protocols(other)])
                    hint = match if match.startswith("; did") and not hint.startswith("; did") else hint
                of = f" for {target}" if target else ""
                raise setting_error(f"{path}: there is no '{protocol}' among the protocols{of}{hint}")

    def _protocols(self, target: str) -> Mapping[str, Any]:
        """Return the protocols of a transfer dataset, or of the study's own images."""
        if not target:
            return PROTOCOLS
        return DETECTION_PROTOCOLS if isinstance(self.target(target), CocoSet) else {**TRANSFER_PROTOCOLS, **PROTOCOLS}

    def _require_teacher(self, name: str, entry: Distillation) -> None:
        bags = entry.named_bags()
        owner = self._owner(bags)
        if entry.teacher is None and owner is None:
            reason = "" if bags is None else f", because bags '{bags}' have no teacher"
            raise setting_error(f"students.{name}.teacher: is missing{reason}; name the teacher to distil")
        if owner is not None and entry.teacher not in (None, owner):
            message = f"'{entry.teacher}' is not the teacher of its bags '{bags}'; remove the key or set '{owner}'"
            raise setting_error(f"students.{name}.teacher: {message}")

    def split_evaluation(self, name: str) -> tuple[str, str]:
        """Return the dataset of an evaluation, empty for the study's own images, and its protocol."""
        return split_name(name, [*self.transfer, *get_args(SOURCES)])

    def target(self, name: str) -> ImageSet | CocoSet:
        """Return a transfer dataset: an entry of `transfer`, or one of torchvision's."""
        return self.transfer[name] if name in self.transfer else TorchvisionSet.model_validate({"source": name})

    def bags_of(self, student: str) -> str | None:
        """Return the bags from which a student samples positives; None if it uses none."""
        entry = self.students[student]
        return entry.named_bags() if entry.draws_positives() else None

    def teacher_of(self, student: str) -> str | None:
        """Return the teacher that a student distils; None for a student without a teacher."""
        entry = self.students[student]
        if not isinstance(entry, Distillation):
            return None
        return entry.teacher or self._owner(entry.named_bags())

    def _owner(self, bags: str | None) -> str | None:
        """Return the teacher whose features the bags use."""
        return None if bags is None else self.bags[bags].named_teacher()


def parse_study(raw: Mapping[str, Any], source: str) -> Study:
    """Validate a study read from YAML.

    Args:
        raw: the parsed YAML.
        source: file name for messages.

    Raises:
        BingoError: the study is invalid; the message names the first invalid key, its value and what is allowed.
    """
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A default that depends on an invalid value is not a separate error.
        faults = [fault for fault in errors if fault["type"] != "default_factory_not_called"]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BingoError(f"{source}: {_describe(faults[0], raw)}{more}") from error


def study_schema() -> dict[str, Any]:
    """Return the JSON schema of a study file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}


def _describe(fault: ErrorDetails, raw: Any) -> str:
    """Return a pydantic error as one line: dotted key, problem and value."""
    path: list[str] = []
    missing = fault["type"] == "missing"
    for i, part in enumerate(fault["loc"]):
        # pydantic lists the tag of a union, such as the method's name, among the keys. The YAML has no such key.
        exists = part in raw if isinstance(raw, Mapping) else isinstance(raw, list) and isinstance(part, int)
        if exists:
            raw = raw[part]
        elif not (missing and i == len(fault["loc"]) - 1):
            continue
        path.append(str(part))
    key, message, value = ".".join(path), fault["msg"], fault["input"]
    if missing:
        return f"{key}: this key is required"
    if fault["type"] == "setting":  # raised by `setting_error`
        return f"{key}: {message}" if key else message
    if fault["type"] == "union_tag_not_found":
        return f"{key}: the key {fault['ctx']['discriminator']} is required"
    if fault["type"] == "union_tag_invalid":
        discriminator = fault["ctx"]["discriminator"].strip("'")
        allowed = fault["ctx"]["expected_tags"]
        return f"{key}.{discriminator}: found {value[discriminator]!r}, allowed: {allowed}"
    is_exponent = isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE)
    hint = " (YAML reads 1e-4 as text: write 1.0e-4)" if is_exponent else ""
    text = repr(value) if len(repr(value)) < 80 else f"a {type(value).__name__}"
    return f"{key}: {message.lower()}, found {text}{hint}"
