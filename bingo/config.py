"""The typed model of a study file: the only definition of its keys, defaults, ranges and cross-references.

`Study` is one YAML; the JSON schema in config/schema.json is generated from it. Sections that several entries share
are in `bingo.sections`, the settings of each method in `bingo.methods`, and what single stages are given of a study in
`bingo.jobs`. Imports no torch: this is read whenever Snakemake starts.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from bingo.errors import BingoError, nearest
from bingo.evaluation.protocols import DETECTION_PROTOCOLS, PROTOCOLS, TRANSFER_PROTOCOLS, split_name
from bingo.methods import Student
from bingo.methods.method import Distillation
from bingo.methods.moco import Moco
from bingo.sections import Architecture, Preprocessing, Strict

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
SOURCES = Literal["fashion-mnist", "cifar10", "cifar100", "stl10"]
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


class _Set(Strict):
    max_train: int | None = Field(default=None, ge=1)
    """Use only this many training images, drawn at random once; null for all."""
    max_val: int | None = Field(default=None, ge=1)
    """Use only this many validation images, drawn at random once; null for all."""


class DemoSet(_Set):
    """The 10,000 + 5,000 Fashion-MNIST images that ship with the package."""

    source: Literal["demo"]
    """Where images come from."""


class TorchvisionSet(_Set):
    """A set that torchvision knows, used where it lies, else downloaded."""

    source: SOURCES
    """Where images come from."""
    root: str = "datasets"
    """Folder that holds the set, or receives the download."""


class FolderSet(_Set):
    """A folder of images: class folders, or a flat one without labels."""

    source: Literal["folder"]
    """Where images come from."""
    train: str
    """Folder of training images, searched recursively."""
    val: str | None = None
    """Folder of validation images; null where there is none."""
    # Left out where it is not used, as before there was such a key: listings and reports need not be made again.
    held_out: float | None = Field(default=None, gt=0, lt=1, exclude_if=lambda share: share is None)
    """Where there is no `val`: about what share of each class's images in `train` are validation images instead, drawn
    by their names, one at least of each class that has two; null to use all for training."""
    labels: Literal["auto", "folders", "none"] = "auto"
    """`folders`: the first folder level names the class; `none`: no labels; `auto`: folders if there are any."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """An unreadable image stops the data stage (`fail`), or is left out and counted (`skip`)."""

    @model_validator(mode="after")
    def _held_out_by_class(self) -> Self:
        if self.held_out is not None and self.val is not None:
            raise PydanticCustomError("said", "held_out and val both name validation images; leave one out")
        if self.held_out is not None and self.labels == "none":
            raise PydanticCustomError("said", "held_out needs class folders, but labels is none; leave one out")
        return self


class Pack(Strict):
    """The images of a folder in one file, for file systems that are slow with many."""

    shorter_side: int | None = Field(default=None, ge=8)
    """Larger images are resized until their shorter side has this many pixels, and encoded as JPEG; null to take every
    file's bytes as they are."""
    quality: int = Field(default=95, ge=1, le=100)
    """JPEG quality of images that are resized."""


class CocoSet(Strict):
    """Images with boxes and masks in COCO's format, for detectors."""

    source: Literal["coco"]
    """Where images come from."""
    train: str
    """Folder of training images."""
    train_annotations: str
    """JSON file of their annotations."""
    val: str
    """Folder of validation images."""
    val_annotations: str
    """JSON file of their annotations."""


class _Data(Strict):
    preprocessing: Preprocessing = Preprocessing()
    """How pixels become network input."""
    workers: int = Field(default=0, ge=0)
    """Loader processes per job; 0 loads in the training process. Never changes a result."""


class DemoData(DemoSet, _Data):
    """The 10,000 + 5,000 Fashion-MNIST images that ship with the package."""


class TorchvisionData(TorchvisionSet, _Data):
    """A set that torchvision knows, used where it lies, else downloaded."""


class FolderData(FolderSet, _Data):
    """A folder of images: class folders, or a flat one without labels."""

    pack: Pack | None = None
    """Copy the images into results/<study>/data/{train,val}.h5, from where all stages read them; null to read the
    folder. Sets to transfer to are not packed."""
    label_lists: dict[Literal["semi-1", "semi-10"], str] = Field(default={})
    """Of semi-supervised protocols, the text files that name the images whose labels are used, one a line; drawn at
    random, the same share of each class, where there is none. ImageNet has lists of its own (google-research/simclr,
    imagenet_subsets/)."""


ImageSet = DemoSet | TorchvisionSet | FolderSet
Data = Annotated[DemoData | TorchvisionData | FolderData, Field(discriminator="source")]
Target = Annotated[ImageSet | CocoSet, Field(discriminator="source")]


class TrainedTeacher(Moco):
    """A backbone pretrained by MoCo-v2."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of initial weights, order and views."""


class ImportedTeacher(Strict):
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


Teacher = Annotated[
    Annotated[TrainedTeacher, Tag("trained")] | Annotated[ImportedTeacher, Tag("imported")],
    Discriminator(_teacher_kind),
]


class Ivf(Strict):
    """An inverted file: images in lists by their nearest centroid, of which a search looks into a few."""

    lists: int = Field(default=4096, ge=1)
    """Centroids; some multiple of the root of the number of images."""
    probes: int = Field(default=32, ge=1)
    """Lists that are looked into for each image: more find more and take longer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.probes > self.lists:
            raise PydanticCustomError("said", "probes must be at most lists")
        return self


class IvfSearch(Strict):
    """Search with an inverted file, which holds all features in memory as float16 and misses some neighbours."""

    ivf: Ivf
    """The index."""


def _search_kind(value: Any) -> str:
    return "index" if isinstance(value, dict | IvfSearch) else "exact"


NeighbourSearch = Annotated[
    Annotated[Literal["exact"], Tag("exact")] | Annotated[IvfSearch, Tag("index")], Discriminator(_search_kind)
]


class KnnBag(Strict):
    """Each image's bag holds its nearest neighbours by cosine similarity of the teacher's features."""

    criterion: Literal["knn"]
    """How images are grouped."""
    teacher: str
    """Entry of `teachers` whose features are compared."""
    size: int = Field(default=5, ge=1)
    """Neighbours per image, the image itself not counted."""
    search: NeighbourSearch = "exact"
    """`exact`, or `{ivf: {...}}`, which is faster for millions of images and misses some neighbours; its recall is
    measured and noted with the bags."""

    @field_validator("search", mode="before")
    @classmethod
    def _exact_or_index(cls, value: Any) -> Any:
        if value != "exact" and not isinstance(value, dict | IvfSearch):
            message = "must be exact, or a section with ivf, found {value}"
            raise PydanticCustomError("said", message, {"value": repr(value)})
        return value


class KmeansBag(Strict):
    """Each image's bag is its cluster, of spherical k-means on the teacher's features."""

    criterion: Literal["kmeans"]
    """How images are grouped."""
    teacher: str
    """Entry of `teachers` whose features are clustered."""
    clusters: int = Field(ge=1)
    """Number of clusters; one that ends empty is dropped."""
    iterations: int = Field(default=20, ge=1)
    """Rounds of assigning images to centroids and moving these."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the initial centroids."""


class LabelBag(Strict):
    """Each image's bag holds all images of its class: what perfect bags would give."""

    criterion: Literal["label"]
    """How images are grouped."""


class RandomBag(Strict):
    """Each image's bag holds images drawn at random: what useless bags would give."""

    criterion: Literal["random"]
    """How images are grouped."""
    size: int = Field(default=5, ge=1)
    """Other images per bag, at least."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the draw."""


Bag = Annotated[KnnBag | KmeansBag | LabelBag | RandomBag, Field(discriminator="criterion")]


class Table(Strict):
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


class Study(Strict):
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
                raise PydanticCustomError(
                    "said",
                    "{path}: there is no '{name}' among the {kind}{hint}",
                    {"path": path, "name": name, "kind": kind, "hint": nearest(name, known)},
                )

        for name, bag in self.bags.items():
            if isinstance(bag, KnnBag | KmeansBag):
                require(f"bags.{name}.teacher", bag.teacher, "teachers", self.teachers)
        for name, entry in self.students.items():
            if isinstance(entry, Distillation):
                if entry.teacher is not None:
                    require(f"students.{name}.teacher", entry.teacher, "teachers", self.teachers)
                if (bags := getattr(entry, "bags", None)) is not None:
                    require(f"students.{name}.bags", bags, "bags", self.bags)
                self._require_teacher(name, entry)
        self._require_protocols("evaluations", self.evaluations)
        for name, table in self.tables.items():
            for student_name in table.students or ():
                require(f"tables.{name}.students", student_name, "students", self.students)
            self._require_protocols(f"tables.{name}.evaluations", table.evaluations or [])
        if not self.teachers and not self.students:
            raise PydanticCustomError("said", "a study needs an entry in teachers or in students")
        if twice := sorted(set(self.teachers) & set(self.students)):
            raise PydanticCustomError(
                "said", "'{name}' names both a teacher and a student; rename one", {"name": twice[0]}
            )
        lists: dict[str, list[Any]] = {"seeds": list(self.seeds), "evaluations": list(self.evaluations)}
        for name, table in self.tables.items():
            lists[f"tables.{name}.students"] = table.students or []
            lists[f"tables.{name}.evaluations"] = table.evaluations or []
        for key, values in lists.items():
            if len(set(values)) < len(values):
                raise PydanticCustomError("said", "{key}: a value is repeated", {"key": key})
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
                raise PydanticCustomError(
                    "said",
                    "{path}: there is no '{protocol}' among the protocols{of}{hint}",
                    {
                        "path": path,
                        "protocol": protocol,
                        "of": f" for {target}" if target else "",
                        "hint": hint,
                    },
                )

    def _protocols(self, target: str) -> Mapping[str, Any]:
        """Return the protocols of a set, or of the study's own images."""
        if not target:
            return PROTOCOLS
        return DETECTION_PROTOCOLS if isinstance(self.target(target), CocoSet) else {**TRANSFER_PROTOCOLS, **PROTOCOLS}

    def _require_teacher(self, name: str, entry: Distillation) -> None:
        bags = getattr(entry, "bags", None)
        owner = self._owner(bags)
        if entry.teacher is None and owner is None:
            reason = "" if bags is None else f", because bags '{bags}' have none"
            message = "students.{name}.teacher: name the teacher to distil{reason}"
            raise PydanticCustomError("said", message, {"name": name, "reason": reason})
        if owner is not None and entry.teacher not in (None, owner):
            raise PydanticCustomError(
                "said",
                "students.{name}.teacher: '{teacher}' is not the teacher of its bags '{bags}'",
                {"name": name, "teacher": entry.teacher, "bags": bags},
            )

    def split_evaluation(self, name: str) -> tuple[str, str]:
        """Return which set an evaluation is measured on, empty for the study's own images, and its protocol."""
        return split_name(name, [*self.transfer, *get_args(SOURCES)])

    def target(self, name: str) -> ImageSet | CocoSet:
        """Return a set of other images: an entry of `transfer`, or one of torchvision's."""
        return self.transfer[name] if name in self.transfer else TorchvisionSet.model_validate({"source": name})

    def bags_of(self, student: str) -> str | None:
        """Return the bags from which a student draws positives, None where it draws none."""
        entry = self.students[student]
        return getattr(entry, "bags", None) if entry.draws_positives() else None

    def teacher_of(self, student: str) -> str | None:
        """Return the teacher that a student distils, None for one trained alone."""
        entry = self.students[student]
        if not isinstance(entry, Distillation):
            return None
        return entry.teacher or self._owner(getattr(entry, "bags", None))

    def _owner(self, bags: str | None) -> str | None:
        """Return the teacher whose features bags were made from."""
        return None if bags is None else getattr(self.bags[bags], "teacher", None)


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
