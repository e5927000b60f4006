"""The typed model of a study file: the only definition of its keys, defaults, ranges and cross-references.

`Study` is one YAML; the JSON schema in config/schema.json is generated from it. Its sections are in `images`,
`teachers`, `bags`, and, where several entries share them, `sections`; the settings of each method are in
`bingo.methods`, and what single stages are given of a study in `jobs` and `report_jobs`. Imports no torch: Snakemake
reads this at every start.
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
    """Show the teachers of the students too."""
    evaluations: list[str] | None = None
    """Protocols to show, in this order, for these networks alone if `evaluations` above has them not; null for all."""
    published: str | None = None
    """CSV of published numbers to stand beside: method, student (its architecture), teacher (its name here), protocol
    (`linear`, `knn-10`, ...), metric, published, source. Numbers without a network of this study are shown too."""


class Study(StrictModel):
    """One study: data, networks, and what is measured."""

    study: Name
    """Name of the study; results go to results/<study>/."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(default=[0], min_length=1)
    """Every student is trained and evaluated once for each of these."""
    data: Data
    """The images."""
    teachers: dict[Name, Teacher] = Field(default={})
    """Named teachers."""
    bags: dict[Name, Bag] = Field(default={})
    """Named bags."""
    students: dict[Name, Student] = Field(default={})
    """Named students."""
    transfer: dict[Name, Target] = Field(default={})
    """Named sets of other images to evaluate on, by `<name>-<protocol>`; torchvision's need no entry."""
    evaluations: list[str] = Field(default=[])
    """Protocols by which every teacher and student is evaluated."""
    tables: dict[Name, Table] = Field(default={})
    """Named tables."""

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
        if twice := sorted(set(self.teachers) & set(self.students)):
            raise setting_error(f"'{twice[0]}' names both a teacher and a student; rename one")
        lists: dict[str, list[Any]] = {"seeds": list(self.seeds), "evaluations": list(self.evaluations)}
        for name, table in self.tables.items():
            lists[f"tables.{name}.students"] = table.students or []
            lists[f"tables.{name}.evaluations"] = table.evaluations or []
        for key, values in lists.items():
            if len(set(values)) < len(values):
                raise setting_error(f"{key}: a value is repeated")
        return self

    def _require_protocols(self, path: str, evaluations: list[str]) -> None:
        for name in evaluations:
            target, protocol = self.split_evaluation(name)
            known = self._protocols(target)
            if protocol not in known:
                hint = nearest(protocol, known)
                if not target:  # perhaps the name of a set is misspelt
                    sets = [*self.transfer, *get_args(SOURCES)]
                    match = nearest(name, [f"{other}-{p}" for other in sets for p in self._protocols(other)])
                    hint = match if match.startswith("; did") and not hint.startswith("; did") else hint
                of = f" for {target}" if target else ""
                raise setting_error(f"{path}: there is no '{protocol}' among the protocols{of}{hint}")

    def _protocols(self, target: str) -> Mapping[str, Any]:
        """Return the protocols of a set, or of the study's own images."""
        if not target:
            return PROTOCOLS
        return DETECTION_PROTOCOLS if isinstance(self.target(target), CocoSet) else {**TRANSFER_PROTOCOLS, **PROTOCOLS}

    def _require_teacher(self, name: str, entry: Distillation) -> None:
        bags = entry.named_bags()
        owner = self._owner(bags)
        if entry.teacher is None and owner is None:
            reason = "" if bags is None else f", because bags '{bags}' have none"
            raise setting_error(f"students.{name}.teacher: name the teacher to distil{reason}")
        if owner is not None and entry.teacher not in (None, owner):
            raise setting_error(f"students.{name}.teacher: '{entry.teacher}' is not the teacher of its bags '{bags}'")

    def split_evaluation(self, name: str) -> tuple[str, str]:
        """Return which set an evaluation is measured on, empty for the study's own images, and its protocol."""
        return split_name(name, [*self.transfer, *get_args(SOURCES)])

    def target(self, name: str) -> ImageSet | CocoSet:
        """Return a set of other images: an entry of `transfer`, or one of torchvision's."""
        return self.transfer[name] if name in self.transfer else TorchvisionSet.model_validate({"source": name})

    def bags_of(self, student: str) -> str | None:
        """Return the bags from which a student draws positives, None where it draws none."""
        entry = self.students[student]
        return entry.named_bags() if entry.draws_positives() else None

    def teacher_of(self, student: str) -> str | None:
        """Return the teacher that a student distils, None for one trained alone."""
        entry = self.students[student]
        if not isinstance(entry, Distillation):
            return None
        return entry.teacher or self._owner(entry.named_bags())

    def _owner(self, bags: str | None) -> str | None:
        """Return the teacher whose features bags were made from."""
        return None if bags is None else self.bags[bags].named_teacher()


def parse_study(raw: Mapping[str, Any], source: str) -> Study:
    """Check a study read from YAML.

    Args:
        raw: the parsed YAML.
        source: file name for messages.

    Raises:
        BingoError: the first fault as one line: the key, what was found and what is allowed.
    """
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A default that would follow from a faulty value is no fault of its own.
        faults = [fault for fault in found if fault["type"] != "default_factory_not_called"]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BingoError(f"{source}: {_describe(faults[0], raw)}{more}") from error


def study_schema() -> dict[str, Any]:
    """Return the JSON schema of a study file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}


def _describe(fault: ErrorDetails, raw: Any) -> str:
    """One line for a pydantic error: dotted key, what is wrong, what was found."""
    path: list[str] = []
    missing = fault["type"] == "missing"
    for i, part in enumerate(fault["loc"]):
        # pydantic puts the tag of a union (the method's name, say) among the keys; it is no key of the YAML.
        known = part in raw if isinstance(raw, Mapping) else isinstance(raw, list) and isinstance(part, int)
        if known:
            raw = raw[part]
        elif not (missing and i == len(fault["loc"]) - 1):
            continue
        path.append(str(part))
    key, message, found = ".".join(path), fault["msg"], fault["input"]
    if missing:
        return f"{key}: this key is required"
    if fault["type"] == "said":  # a fault that this project found, and described
        return f"{key}: {message}" if key else message
    if fault["type"] == "union_tag_not_found":
        return f"{key}: the key {fault['ctx']['discriminator']} is required"
    if fault["type"] == "union_tag_invalid":
        discriminator = fault["ctx"]["discriminator"].strip("'")
        allowed = fault["ctx"]["expected_tags"]
        return f"{key}.{discriminator}: found {found[discriminator]!r}, allowed: {allowed}"
    is_exponent = isinstance(found, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", found, re.IGNORECASE)
    hint = " (YAML reads 1e-4 as text: write 1.0e-4)" if is_exponent else ""
    shown = repr(found) if len(repr(found)) < 80 else f"a {type(found).__name__}"
    return f"{key}: {message.lower()}, found {shown}{hint}"
