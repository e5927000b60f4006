"""Write config/schema.json and config/README.md from the typed model of a study file: ``make docs``."""

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

One YAML file is one study. `config.yaml` is the demo and what `snakemake` runs by itself; run another with

    snakemake --cores all --configfile config/my-study.yaml

`bingo new` writes one that fits a folder of images.

Teachers, bags and students are named entries that refer to one another by name: a student names its bags, a bag its
teacher. A wrong key, type, range or name of an entry stops before any job starts; what only a checkpoint or timm knows,
in its own job. A stage reruns when something it depends on changes, and only then: a student's learning rate retrains
that student and what follows it.

This page is made from the typed model in `bingo/study/` by `make docs`; `schema.json` beside it lets editors
complete and check study files (first line: `# yaml-language-server: $schema=schema.json`).
"""

PROTOCOL_INTRODUCTION = """\
## Protocols that `evaluations` may name

Hyper-parameters under a name never change; `bingo/study/protocols.py` holds them. `<set>-<protocol>` measures a
network on other images: those of an entry of `transfer`, or one of torchvision's sets (`cifar10-linear`, say), prepared
as `data.preprocessing` says. Protocols of the study's own images do so too (`cifar10-knn-20`).
"""


def _method(model: type[BaseModel]) -> str:
    return str(typing.get_args(model.model_fields["method"].annotation)[0])


SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("Top level", schema.Study),
    ("`data` with `source: demo`", images.DemoData),
    ("`data` with `source: folder`", images.FolderData),
    ("`data.pack`", images.Pack),
    ("`data` with `source:` a set of torchvision's", images.TorchvisionData),
    ("`data.preprocessing`", sections.Preprocessing),
    ("`teachers.<name>` with `method: moco`", moco.TrainedTeacher),
    ("`teachers.<name>` with `checkpoint:`", teachers.ImportedTeacher),
    ("`bags.<name>` with `criterion: knn`", bags.KnnBag),
    ("`search` of bags with `criterion: knn`, where it is not `exact`", bags.IvfSearch),
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
    ("`training.schedule`, where it is not `cosine`", sections.Steps),
    ("`transfer.<name>` with `source: demo`", images.DemoSet),
    ("`transfer.<name>` with `source: folder`", images.FolderSet),
    ("`transfer.<name>` with `source:` a set of torchvision's", images.TorchvisionSet),
    ("`transfer.<name>` with `source: coco`", images.CocoSet),
    ("`tables.<name>`", schema.Table),
]


def readme() -> str:
    """Return config/README.md."""
    parts = [INTRODUCTION]
    for title, model in SECTIONS:
        meaning = inspect.cleandoc(model.__doc__ or "")
        parts.append(f"## {title}\n\n{meaning}\n\n| key | allowed | default | meaning |\n| --- | --- | --- | --- |")
        for key, field in model.model_fields.items():
            meaning = (field.description or "").replace("|", "\\|").replace("\n", " ")
            parts.append(f"| `{key}` | {_allowed(field)} | {_default(field)} | {meaning} |")
        parts.append("")
    parts.append(PROTOCOL_INTRODUCTION)
    parts += _protocols("On the study's own images", "", PROTOCOLS)
    parts += _protocols("On other labelled images", "<set>-", TRANSFER_PROTOCOLS)
    parts += _protocols("On COCO's format", "<set>-", DETECTION_PROTOCOLS)
    parts.append(f"## Recipes\n\nViews are drawn by frozen recipes, {', '.join(f'`{name}`' for name in RECIPES)};")
    parts.append("`bingo/views/recipes.py` holds their numbers.")
    return "\n".join(parts) + "\n"


def _protocols(title: str, prefix: str, protocols: Mapping[str, Protocol]) -> list[str]:
    rows = [f"| `{prefix}{name}` | {protocol.source} |" for name, protocol in protocols.items()]
    return [f"### {title}\n\n| name | source |\n| --- | --- |", *rows, ""]


def json_schema() -> str:
    """Return config/schema.json."""
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
