"""The files of a study that its data support. Does not import torch: Snakemake runs this at every start."""

import csv
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from bingo.errors import BingoError
from bingo.study.bags import IvfSearch, KmeansBag, KnnBag, LabelBag, RandomBag
from bingo.study.facts import SourceFacts, source_facts
from bingo.study.images import CocoSet, FolderData
from bingo.study.protocols import PROTOCOLS, Finetune
from bingo.study.report_contents import bag_size_series, model_seeds, table_rows
from bingo.study.schema import Study, parse_study
from bingo.study.teachers import ImportedTeacher


class Plan:
    """Paths under results/<study>/, and the parts of the study that its data support."""

    def __init__(self, study: Study) -> None:
        """Inspect the study's data.

        Raises:
            BingoError: a data folder is missing or empty, a bag or batch needs more images than there are, or a
                transfer dataset has no labels or no validation images.
        """
        self.study = study
        self.facts = source_facts(study.data, "data")
        if self.facts.most_images is not None:
            _require_enough(study, self.facts.most_images)
        for name, bag in study.bags.items():
            if isinstance(bag, LabelBag) and not self.facts.labels:
                raise BingoError(
                    f"bags.{name}: criterion label needs labels, but the dataset has none; choose another criterion"
                )
        self._require_checkpoints()
        requested = list(study.evaluations)
        for name, table in study.tables.items():
            requested += table.evaluations or []
            if table.published is not None:
                _require_file(f"tables.{name}.published", table.published)
                _require_columns(f"tables.{name}.published", table.published)
        self.requested = list(dict.fromkeys(requested))
        self.targets = self._targets()
        self._require_label_lists()
        self.tables = [name for name in study.tables if self.table_evaluations(name)]
        self.left_out = ""
        if left := [name for name in self.requested if not self.is_possible(name)]:
            missing = "labels" if not self.facts.labels else "validation images"
            tables = [f"table {name}" for name in study.tables if name not in self.tables]
            what = "evaluations and tables" if left == self.requested else ", ".join([*left, *tables])
            self.left_out = f"{what}, because the data have no {missing}."

    def path(self, name: str) -> str:
        """Return the path of a file in the study's folder."""
        return f"results/{self.study.study}/{name}"

    def paths(self, pattern: str, names: Iterable[str]) -> list[str]:
        """Return the path of ``pattern`` for each name."""
        return [self.path(pattern.format(name)) for name in names]

    @property
    def packed(self) -> bool:
        """Whether the study stores its images in one file (`data.pack`)."""
        return isinstance(self.study.data, FolderData) and self.study.data.pack is not None

    def listing(self, split: str, target: str = "") -> str:
        """Return the listing (or pack) of a split of the study's images, or of the dataset ``target`` of `transfer`."""
        if target:
            return self.path(f"data/{target}/{split}-listing.h5")
        return self.path(f"data/{split}.h5" if self.packed else f"data/{split}-listing.h5")

    def weights(self, model: str, seed: int) -> str:
        """Return the weights file of a teacher or student."""
        if model in self.study.teachers:
            return self.path(f"teachers/{model}.safetensors")
        return self.path(f"students/{model}/seed-{seed}/backbone.safetensors")

    def all_weights(self) -> list[str]:
        """Return the weights files of all teachers and students."""
        models = [*self.study.teachers, *self.study.students]
        return [self.weights(model, seed) for model in models for seed in model_seeds(self.study, model)]

    def targets_of(self, student: str) -> list[str]:
        """Return the stored teacher outputs of a student: `<teacher>/<recipe>-<precision>-<layer>-<slot>-<views>`."""
        entry, teacher, views = self.study.students[student], self.study.teacher_of(student), None
        if teacher is None or (views := entry.stored_views()) is None:
            return []
        prefix = f"{teacher}/{entry.training.views}-{entry.training.precision}-{entry.layer}"
        return [f"{prefix}-{slot}-{views}" for slot in entry.teacher_view_slots()]

    def trained_teachers(self) -> list[str]:
        """Return the teachers that the study trains."""
        return [name for name in self.study.teachers if name not in self.checkpoints()]

    def checkpoints(self) -> dict[str, str]:
        """Return the checkpoints of imported teachers, by name."""
        teachers = self.study.teachers.items()
        return {name: entry.checkpoint for name, entry in teachers if isinstance(entry, ImportedTeacher)}

    def is_possible(self, evaluation: str) -> bool:
        """Return whether the data support an evaluation; transfer datasets always do."""
        target, _ = self.study.split_evaluation(evaluation)
        return bool(target) or (self.facts.labels and self.facts.validation)

    def possible_evaluations(self) -> list[str]:
        """Return the study's evaluations that the data support."""
        return [name for name in self.study.evaluations if self.is_possible(name)]

    def table_evaluations(self, table: str) -> list[str]:
        """Return the evaluations of a table that the data support."""
        evaluations = self.study.tables[table].evaluations
        names = self.study.evaluations if evaluations is None else evaluations
        return [name for name in names if self.is_possible(name)]

    def detections(self) -> list[str]:
        """Return the evaluations that train detectors."""
        return [name for name in self.requested if self._coco(name) is not None]

    def classifications(self) -> list[str]:
        """Return the evaluations that classify images."""
        return [name for name in self.requested if self._coco(name) is None]

    def results(self, models: Iterable[str], protocols: Iterable[str]) -> list[str]:
        """Return the result files of ``models`` (teachers and students) for ``protocols`` and all seeds."""
        return [
            self.result(model, seed, protocol)
            for model in models
            for seed in model_seeds(self.study, model)
            for protocol in protocols
        ]

    def result(self, model: str, seed: int, evaluation: str) -> str:
        """Return the result file of one evaluation of a teacher or student."""
        return self.path(f"evaluation/{model}/seed-{seed}/{evaluation}.json")

    def all_results(self) -> list[str]:
        """Return all result files that the data support."""
        results = self.results([*self.study.teachers, *self.study.students], self.possible_evaluations())
        for table in self.tables:
            results += self.table_results(table)
        return list(dict.fromkeys(results))

    def network_results(self, model: str, seed: int) -> list[str]:
        """Return all result files of a teacher or student with one seed."""
        return self.paths(f"evaluation/{model}/seed-{seed}/{{}}.json", self.possible_evaluations())

    def table_results(self, table: str) -> list[str]:
        """Return the result files of a table."""
        models = [row.model for row in table_rows(self.study, table)]
        return self.results(models, self.table_evaluations(table))

    def training_logs(self) -> dict[str, str]:
        """Return the training logs of all trained teachers and of all students and seeds, by name."""
        logs = {name: self.path(f"teachers/{name}.csv") for name in self.trained_teachers()}
        for student in self.study.students:
            for seed in self.study.seeds:
                logs[f"{student}/seed-{seed}"] = self.path(f"students/{student}/seed-{seed}/log.csv")
        return logs

    def figures(self) -> list[str]:
        """Return the names of all figures in report order."""
        figures = [f"accuracy-{table}" for table in self.tables]
        if self.bag_size_evaluations():
            figures.append("bag-size")
        if self.training_logs():
            figures.append("training")
        if self.facts.labels:
            figures += [f"purity-{teacher}" for teacher in self._bag_teachers()]
        figures += [f"similarity-{name}" for name, bag in self.study.bags.items() if isinstance(bag, KnnBag)]
        return figures + [f"map-{model}" for model in (*self.study.teachers, *self.study.students)]

    def bag_size_evaluations(self) -> list[str]:
        """Return the evaluations to plot against bag size; empty without students of several bag sizes."""
        return self.possible_evaluations() if bag_size_series(self.study) else []

    def bag_size_results(self) -> list[str]:
        """Return the results to plot against bag size."""
        students = [name for series in bag_size_series(self.study) for name in series.sizes]
        return self.results(students, self.bag_size_evaluations())

    def map_split(self) -> Literal["train", "val"]:
        """Return the split shown in feature maps: validation images if there are any."""
        return "val" if self.facts.validation else "train"

    def sheets(self) -> dict[str, str]:
        """Return all contact sheets by `<bags>/<page>`; `best` and `worst` need labels or similarities."""
        sheets = {}
        for name, bag in self.study.bags.items():
            sheets[f"{name}/random"] = self.path(f"bags/{name}.png")
            ranked = ["best", "worst"] if self.facts.labels or isinstance(bag, KnnBag) else []
            for page in ("more", *ranked):
                sheets[f"{name}/{page}"] = self.path(f"figures/{page}-{name}.png")
        return sheets

    def benchmarks(self) -> dict[str, list[str]]:
        """Return the benchmark files that Snakemake writes, by stage."""
        jobs: dict[str, list[str]] = {
            "teacher": self.trained_teachers(),
            "embeddings": [name for name in self.study.teachers if name in self._bag_teachers()],
            "bags": list(self.study.bags),
            "targets": [],
            "student": [],
        }
        for student in self.study.students:
            jobs["student"] += [f"{student}/seed-{seed}" for seed in self.study.seeds]
            jobs["targets"] += self.targets_of(student)
        for result in self.all_results():
            name = result.removeprefix(self.path("evaluation/")).removesuffix(".json")
            stage = "detection" if name.rpartition("/")[2] in self.detections() else "evaluation"
            jobs.setdefault(stage, []).append(name)
        return {
            stage: [self.path(f"benchmarks/{stage}/{name}.tsv") for name in dict.fromkeys(names)]
            for stage, names in jobs.items()
            if names
        }

    def _bag_teachers(self) -> list[str]:
        """Return the teachers whose features the bags use."""
        teachers = (bag.named_teacher() for bag in self.study.bags.values())
        return list(dict.fromkeys(teacher for teacher in teachers if teacher is not None))

    def faults(self, since: float) -> list[str]:
        """Return the errors in logs modified after ``since`` (seconds since the epoch), as `<log>: <error>`."""
        faults = []
        for path in sorted(Path("logs", self.study.study).rglob("*.log")):
            if path.stat().st_mtime >= since:
                lines = (line.partition(" error: ") for line in path.read_text(encoding="utf-8").splitlines())
                faults += [f"{path}: {fault}" for _, separator, fault in lines if separator]
        return faults

    def _coco(self, evaluation: str) -> CocoSet | None:
        target, _ = self.study.split_evaluation(evaluation)
        images = self.study.target(target) if target else None
        return images if isinstance(images, CocoSet) else None

    def _targets(self) -> dict[str, SourceFacts]:
        """Return facts about the transfer datasets that evaluations use."""
        targets = {}
        for evaluation in self.requested:
            target, _ = self.study.split_evaluation(evaluation)
            if not target or target in targets:
                continue
            images, key = self.study.target(target), f"transfer.{target}"
            if isinstance(images, CocoSet):
                for name in ("train", "train_annotations", "val", "val_annotations"):
                    if not Path(getattr(images, name)).exists():
                        raise BingoError(f"{key}.{name}: there is no {getattr(images, name)}; correct the path")
                    _refuse_braces(f"{key}.{name}", getattr(images, name))
                continue
            facts = source_facts(images, key)
            if not facts.labels or not facts.validation:
                missing = "labels" if not facts.labels else "validation images"
                raise BingoError(f"{key}: has no {missing} to evaluate with; add them or remove {evaluation}")
            targets[target] = facts
        return targets

    def label_lists(self) -> Mapping[str, str]:
        """Return the files that list the images whose labels are used, by protocol."""
        data = self.study.data
        return {str(name): path for name, path in data.label_lists.items()} if isinstance(data, FolderData) else {}

    def _require_label_lists(self) -> None:
        for name, path in self.label_lists().items():
            _require_file(f"data.label_lists.{name}", path)
        for name in self.requested:
            if isinstance(PROTOCOLS.get(name), Finetune) and self.facts.is_imagenet and name not in self.label_lists():
                raise BingoError(
                    f"data.label_lists: {name} on ImageNet needs SimCLR's list of images; set {name} to that file "
                    "(github.com/google-research/simclr, imagenet_subsets)"
                )

    def _require_checkpoints(self) -> None:
        for name, path in self.checkpoints().items():
            # A checkpoint among the study's results may be a student that is not trained yet.
            if not Path(path).is_file() and not path.startswith(self.path("")):
                raise BingoError(f"teachers.{name}.checkpoint: there is no file {path}; correct the path")
            _refuse_braces(f"teachers.{name}.checkpoint", path)


def _require_file(key: str, path: str) -> None:
    if not Path(path).is_file():
        raise BingoError(f"{key}: there is no file {path}; correct the path")
    _refuse_braces(key, path)


def _require_columns(key: str, path: str) -> None:
    """Check the columns of published numbers before the study runs, not at its end."""
    with Path(path).open(encoding="utf-8", errors="replace", newline="") as file:
        columns = next(csv.reader(file), [])
    needed = ("method", "student", "teacher", "protocol", "metric", "published", "source")
    if missing := [name for name in needed if name not in columns]:
        raise BingoError(f"{key}: {path} lacks the columns {', '.join(missing)}; add them (see config/paper)")


def _refuse_braces(key: str, path: str) -> None:
    if "{" in path or "}" in path:
        raise BingoError(f"{key}: {path} has braces in its name, which Snakemake does not support; rename it")


def _require_enough(study: Study, images: int) -> None:
    """Check the number of images before the study runs, not when its jobs fail."""
    needs: dict[str, tuple[int, int]] = {}
    for name, bag in study.bags.items():
        if isinstance(bag, KnnBag | RandomBag):
            needs[f"bags.{name}.size"] = bag.size, bag.size + 1
            if isinstance(bag, KnnBag) and isinstance(bag.search, IvfSearch):
                lists = bag.search.ivf.lists
                needs[f"bags.{name}.search.ivf.lists"] = lists, lists
        elif isinstance(bag, KmeansBag):
            needs[f"bags.{name}.clusters"] = bag.clusters, bag.clusters
    for section, entries in (("teachers", study.teachers), ("students", study.students)):
        for name, entry in entries.items():
            if not isinstance(entry, ImportedTeacher):
                size = entry.training.batch_size
                needs[f"{section}.{name}.training.batch_size"] = size, size
    for key, (value, needed) in needs.items():
        if needed > images:
            raise BingoError(f"{key}: {value} needs {needed} training images, but there are {images}; lower it")


def plan_or_exit(config: Mapping[str, Any], files: Iterable[object]) -> Plan:
    """Return the plan of the study that Snakemake read; on error, print one line and exit with code 1."""
    try:
        return Plan(parse_study(config, ", ".join(str(file) for file in files) or "config"))
    except BingoError as error:
        print(f"bingo: error: {error}", file=sys.stderr)
        sys.exit(1)
