"""Write config/schema.json and config/README.md from the schema of study files; run by ``make docs``."""

import inspect
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bingo.methods import compress, moco, seed
from bingo.study import bags, images, method, schema, sections, teachers
from bingo.study.protocols import DETECTION_PROTOCOLS, PROTOCOLS, TRANSFER_PROTOCOLS, Protocol
from bingo.views.recipes import RECIPES

FOLDER = Path(__file__).parents[2] / "config"

INTRODUCTION = """\
# Study files

Each study is one YAML file. Without `--configfile`, `snakemake` runs the demo, `config.yaml`. To run another study:

    snakemake --cores all --configfile config/my-study.yaml

`bingo new` writes a study file for a folder of images.

Teachers, bags and students are entries with names: a student refers to its bags by name, and bags refer to their
teacher. Invalid keys, types, ranges and names are reported before any job starts. Errors that depend on the content of
a checkpoint or on timm are reported by the job that reads it. A stage reruns only when something it depends on changes:
a new learning rate of a student retrains that student and reruns the stages after it.

`make docs` generates this page from the schema in `bingo/study/`. With `schema.json`, editors can complete and validate
study files; add `# yaml-language-server: $schema=schema.json` as the first line.
"""

PROTOCOL_INTRODUCTION = """\
## Protocols that `evaluations` may name

The hyper-parameters of a protocol never change; they are in `bingo/study/protocols.py`. `<set>-<protocol>` evaluates a
network on another dataset: an entry of `transfer`, or one of torchvision's datasets (for example `cifar10-linear`). The
images are preprocessed as in `data.preprocessing`. The protocols for the study's own images can also be used
(`cifar10-knn-20`).
"""


def _method(model: type[BaseModel]) -> str:
    return str(typing.get_args(model.model_fields["method"].annotation)[0])


SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("Top level", schema.Study),
    ("`data` with `source: demo`", images.DemoData),
    ("`data` with `source: folder`", images.FolderData),
    ("`data.pack`", images.Pack),
    ("`data` with a torchvision dataset as `source`", images.TorchvisionData),
    ("`data.preprocessing`", sections.Preprocessing),
    ("`teachers.<name>` with `method: moco`", moco.TrainedTeacher),
    ("`teachers.<name>` with `checkpoint:`", teachers.ImportedTeacher),
    ("`bags.<name>` with `criterion: knn`", bags.KnnBag),
    ("`search` of bags with `criterion: knn`, if not `exact`", bags.IvfSearch),
    ("`search.ivf`", bags.Ivf),
    ("`bags.<name>` with `criterion: kmeans`", bags.KmeansBag),
    ("`bags.<name>` with `criterion: label`", bags.LabelBag),
    ("`bags.<name>` with `criterion: random`", bags.RandomBag),
    *((f"`students.<name>` with `method: {_method(model)}`", model) for model in method.STUDENTS),
    ("`backbone` of a teacher or student", sections.Backbone),
    ("`head` with `method: moco`", moco.Head),
    ("`head` with `method: bingo` or `disco`", method.DistillationHead),
    ("`head` with `method: seed`", seed.SeedHead),
    ("`training` of a teacher or student", sections.Training),
    ("`training` with `method: compress`", compress.CompressTraining),
    ("`training.schedule`, if not `cosine`", sections.Steps),
    ("`transfer.<name>` with `source: demo`", images.DemoSet),
    ("`transfer.<name>` with `source: folder`", images.FolderSet),
    ("`transfer.<name>` with a torchvision dataset as `source`", images.TorchvisionSet),
    ("`transfer.<name>` with `source: coco`", images.CocoSet),
    ("`tables.<name>`", schema.Table),
]


def readme() -> str:
    """Return the content of config/README.md."""
    parts = [INTRODUCTION]
    for title, model in SECTIONS:
        meaning = inspect.cleandoc(model.__doc__ or "")
        parts.append(f"## {title}\n\n{meaning}\n\n| key | allowed | default | meaning |\n| --- | --- | --- | --- |")
        for key, field in model.model_fields.items():
            meaning = (field.description or "").replace("|", "\\|").replace("\n", " ")
            parts.append(f"| `{key}` | {_allowed(field)} | {_default(field)} | {meaning} |")
        parts.append("")
    parts.append(PROTOCOL_INTRODUCTION)
    parts += _protocols("For the study's own images", "", PROTOCOLS)
    parts += _protocols("For other labelled datasets", "<set>-", TRANSFER_PROTOCOLS)
    parts += _protocols("For datasets in COCO format", "<set>-", DETECTION_PROTOCOLS)
    recipes = ", ".join(f"`{name}`" for name in RECIPES)
    parts.append(f"## Augmentation recipes\n\nThe recipes are {recipes}. Their parameters never change; they are in")
    parts.append("`bingo/views/recipes.py`.")
    return "\n".join(parts) + "\n"


def _protocols(title: str, prefix: str, protocols: Mapping[str, Protocol]) -> list[str]:
    rows = [f"| `{prefix}{name}` | {protocol.source} |" for name, protocol in protocols.items()]
    return [f"### {title}\n\n| name | source |\n| --- | --- |", *rows, ""]


def json_schema() -> str:
    """Return the content of config/schema.json."""
    return json.dumps(schema.study_schema(), indent=2) + "\n"


def _allowed(field: FieldInfo) -> str:
    limits = []
    for part in field.metadata:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if (limit := getattr(part, name, None)) is not None:
                limits.append(f"{sign} {'2^32' if limit == 2**32 else limit}")
    return ", ".join([_type(field.annotation), *limits])


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        kinds = {"null" if argument is type(None) else _type(argument): None for argument in arguments}
        return " or ".join(kinds)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "named entries"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return {int: "integer", float: "number", str: "text", bool: "true, false"}[annotation]


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return inspect.getdoc(field.default_factory) or ""
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        changed = field.default.model_dump(exclude_unset=True)
        return ", ".join(f"`{key}: {value}`" for key, value in changed.items()) or "its defaults"
    return f"`{json.dumps(field.default)}`"


def main() -> None:
    """Write both files."""
    (FOLDER / "README.md").write_text(readme(), encoding="utf-8")
    (FOLDER / "schema.json").write_text(json_schema(), encoding="utf-8")


if __name__ == "__main__":
    main()
