"""The typed model of a study file: the only definition of its keys, defaults, ranges and cross-references.

`Study` is one YAML; the JSON schema in config/schema.json is generated from it. What single stages are given of
it stands in `bingo.jobs`. Imports no torch: this is read whenever Snakemake starts.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from bingo.errors import BingoError, nearest
from bingo.evaluation.protocols import PROTOCOLS

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
Mean = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0)]
SOURCES = Literal["fashion-mnist", "cifar10", "cifar100", "stl10"]
Precision = Literal["auto", "float32", "bfloat16"]
ARCHITECTURES = Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


class Strict(BaseModel):
    """A section of the study: unknown keys are errors, values are not coerced, instances do not change."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, section: Any) -> Any:
        for key in section if isinstance(section, dict) else ():
            if key not in cls.model_fields:
                hint = nearest(str(key), cls.model_fields)
                raise PydanticCustomError("unknown_key", "unknown key '{key}'{hint}", {"key": key, "hint": hint})
        return section


class NetworkInput(Strict):
    """What a network sees, in training too."""

    size: int = Field(default=224, ge=8)
    """Side of the network's square input, in pixels."""
    mean: list[Mean] = Field(default=[0.485, 0.456, 0.406], min_length=3, max_length=3)
    """Mean of red, green and blue, in [0, 1] (ImageNet's)."""
    std: list[Deviation] = Field(default=[0.229, 0.224, 0.225], min_length=3, max_length=3)
    """Standard deviation of red, green and blue (ImageNet's)."""


class Preprocessing(NetworkInput):
    """How pixels become network input; the same for every stage of a study."""

    resize: int = Field(default=256, ge=8)
    """Evaluation and embeddings: the shorter side is resized to this, then the centre `size` is cropped."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize < self.size:
            raise PydanticCustomError("crop", "resize must be at least size")
        return self

    def network_input(self) -> NetworkInput:
        """Return the part that training depends on."""
        return NetworkInput(size=self.size, mean=self.mean, std=self.std)


class _Data(Strict):
    preprocessing: Preprocessing = Preprocessing()
    """How pixels become network input."""
    max_train: int | None = Field(default=None, ge=1)
    """Use only this many training images, drawn at random once; null for all."""
    max_val: int | None = Field(default=None, ge=1)
    """Use only this many validation images, drawn at random once; null for all."""
    workers: int = Field(default=0, ge=0)
    """Loader processes per job; 0 loads in the training process. Never changes a result."""


class DemoData(_Data):
    """The 10,000 + 5,000 Fashion-MNIST images that ship with the package."""

    source: Literal["demo"]
    """Where images come from."""


class TorchvisionData(_Data):
    """A set that torchvision knows, used where it lies, else downloaded."""

    source: SOURCES
    """Where images come from."""
    root: str = "datasets"
    """Folder that holds the set, or receives the download."""


class FolderData(_Data):
    """A folder of images: class folders, or a flat one without labels."""

    source: Literal["folder"]
    """Where images come from."""
    train: str
    """Folder of training images, searched recursively."""
    val: str | None = None
    """Folder of validation images; null where there is none."""
    labels: Literal["auto", "folders", "none"] = "auto"
    """`folders`: the first folder level names the class; `none`: no labels; `auto`: folders if there are any."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """An unreadable image stops the data stage (`fail`), or is left out and counted (`skip`)."""


Data = Annotated[DemoData | TorchvisionData | FolderData, Field(discriminator="source")]


class Backbone(Strict):
    """A torchvision ResNet; resnet10 has one basic block a stage."""

    architecture: ARCHITECTURES
    """Name of the network."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """`imagenet`: 7x7 stride 2 and max pooling; `small`: 3x3 stride 1, for images of some 32 px."""
    width: float = Field(default=1.0, ge=1 / 64, le=4)
    """Factor on the channels of every layer."""


class Head(Strict):
    """Projection head: Linear, ReLU, Linear."""

    hidden: int | None = Field(default=None, ge=1)
    """Width of the hidden layer; null for the backbone's own width."""
    dim: int = Field(default=128, ge=2)
    """Width of the embedding that losses compare."""


class DistillationHead(Strict):
    """Projection head of a student: Linear, ReLU, Linear, as wide at its end as the teacher's."""

    hidden: int = Field(default=2048, ge=1)
    """Width of the hidden layer."""


class Training(Strict):
    """SGD with a cosine schedule per epoch and no warm-up (MoCo-v2's recipe)."""

    epochs: int = Field(default=200, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(default=256, ge=2)
    """Images per optimizer step, over all devices; an incomplete last batch is dropped."""
    lr: float = Field(default=0.03, gt=0)
    """Learning rate at the start of the schedule."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD momentum."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay on every parameter."""
    views: Literal["paper", "small"] = "paper"
    """Recipe of random views: MoCo-v2's, or crops, flips, brightness and contrast for small images."""
    precision: Precision = "auto"
    """`auto`: bfloat16 autocast where the hardware has it, else float32."""


class Moco(Strict):
    """MoCo-v2: a query against the momentum encoder's key and a queue of past keys."""

    method: Literal["moco"]
    """Name of the method."""
    backbone: Backbone
    """The network to train."""
    head: Head = Head()
    """Its projection head."""
    training: Training = Training()
    """Optimizer, schedule and views."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature."""
    queue_size: int = Field(default=65536, ge=1)
    """Number of past keys that serve as negatives."""
    key_momentum: float = Field(default=0.999, ge=0, le=1)
    """Momentum of the key encoder's moving average."""


class Teacher(Moco):
    """A backbone pretrained by MoCo-v2."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of initial weights, order and views."""


class Bingo(Strict):
    """BINGO: the anchor and a member of its bag are pulled to the teacher's embedding of the anchor."""

    method: Literal["bingo"]
    """Name of the method."""
    objective: Literal["paper"] = "paper"
    """`paper`: L_intra + L_inter."""
    bags: str
    """Entry of `bags` from which positives are drawn."""
    teacher: str | None = None
    """Entry of `teachers` to distil; null for the teacher of the bags."""
    backbone: Backbone
    """The network to train."""
    head: DistillationHead = DistillationHead()
    """Its projection head."""
    training: Training = Training()
    """Optimizer, schedule and views."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature."""
    queue_size: int = Field(default=65536, ge=1)
    """Number of past teacher embeddings that serve as negatives."""


Student = Annotated[Moco | Bingo, Field(discriminator="method")]


class KnnBag(Strict):
    """Each image's bag holds its nearest neighbours by cosine similarity of the teacher's features."""

    criterion: Literal["knn"]
    """How images are grouped."""
    teacher: str
    """Entry of `teachers` whose features are compared."""
    size: int = Field(default=5, ge=1)
    """Neighbours per image, the image itself not counted."""


class Table(Strict):
    """A table of the study's results."""

    title: str
    """Heading in Markdown, caption in LaTeX."""
    students: list[str] | None = None
    """Students to show, in this order, below their teachers; null for all students and teachers."""
    evaluations: list[str] | None = None
    """Protocols to show, in this order; null for all."""


class Study(Strict):
    """One study: data, networks, and what is measured."""

    study: Name
    """Name of the study; results go to results/<study>/."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(default=[0], min_length=1)
    """Every student is trained and evaluated once for each of these."""
    data: Data
    """The images."""
    teachers: dict[Name, Teacher] = {}
    """Named teachers."""
    bags: dict[Name, KnnBag] = {}
    """Named bags."""
    students: dict[Name, Student] = {}
    """Named students."""
    evaluations: list[str] = []
    """Protocols by which every teacher and student is evaluated."""
    tables: dict[Name, Table] = {}
    """Named tables."""

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        def require(path: str, name: str, kind: str, known: Mapping[str, Any]) -> None:
            if name not in known:
                raise PydanticCustomError(
                    "reference",
                    "{path}: there is no '{name}' among the {kind}{hint}",
                    {"path": path, "name": name, "kind": kind, "hint": nearest(name, known)},
                )

        for name, bag in self.bags.items():
            require(f"bags.{name}.teacher", bag.teacher, "teachers", self.teachers)
        for name, entry in self.students.items():
            if isinstance(entry, Bingo):
                require(f"students.{name}.bags", entry.bags, "bags", self.bags)
                if entry.teacher is not None:
                    require(f"students.{name}.teacher", entry.teacher, "teachers", self.teachers)
                if entry.teacher not in (None, self.bags[entry.bags].teacher):
                    raise PydanticCustomError(
                        "reference",
                        "students.{name}.teacher: '{teacher}' is not the teacher of its bags '{bags}'",
                        {"name": name, "teacher": entry.teacher, "bags": entry.bags},
                    )
        for protocol in self.evaluations:
            require("evaluations", protocol, "protocols", PROTOCOLS)
        for name, table in self.tables.items():
            for student_name in table.students or ():
                require(f"tables.{name}.students", student_name, "students", self.students)
            for protocol in table.evaluations or ():
                require(f"tables.{name}.evaluations", protocol, "evaluations", dict.fromkeys(self.evaluations))
        if not self.teachers and not self.students:
            raise PydanticCustomError("names", "a study needs an entry in teachers or in students")
        if twice := sorted(set(self.teachers) & set(self.students)):
            raise PydanticCustomError(
                "names", "'{name}' names both a teacher and a student; rename one", {"name": twice[0]}
            )
        lists: dict[str, list[Any]] = {"seeds": list(self.seeds), "evaluations": list(self.evaluations)}
        for name, table in self.tables.items():
            lists[f"tables.{name}.students"] = table.students or []
            lists[f"tables.{name}.evaluations"] = table.evaluations or []
        for key, values in lists.items():
            if len(set(values)) < len(values):
                raise PydanticCustomError("repeated", "{key}: a value is repeated", {"key": key})
        return self

    def teacher_of(self, student: str) -> str | None:
        """Return the teacher that a student distils, None for one trained alone."""
        entry = self.students[student]
        return None if isinstance(entry, Moco) else entry.teacher or self.bags[entry.bags].teacher


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
        faults = error.errors(include_url=False)
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
    if fault["type"] in ("unknown_key", "reference", "names", "repeated", "crop"):
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
