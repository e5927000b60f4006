"""Which files a study consists of, given what its data allow. Imports no torch: Snakemake asks this at every start."""

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
    """Paths below results/<study>/, and the parts of the study that its data allow."""

    def __init__(self, study: Study) -> None:
        """Look at the study's data.

        Raises:
            BingoError: a data folder is missing or empty, a bag or batch needs more images than there are, or a set
                to evaluate on has no labels or no validation images.
        """
        self.study = study
        self.facts = source_facts(study.data, "data")
        if self.facts.most_images is not None:
            _require_enough(study, self.facts.most_images)
        for name, bag in study.bags.items():
            if isinstance(bag, LabelBag) and not self.facts.labels:
                raise BingoError(f"bags.{name}: criterion label needs labels, which the data have not; take another")
        self._require_checkpoints()
        asked = list(study.evaluations)
        for name, table in study.tables.items():
            asked += table.evaluations or []
            if table.published is not None:
                _require_file(f"tables.{name}.published", table.published)
                _require_columns(f"tables.{name}.published", table.published)
        self.asked = list(dict.fromkeys(asked))
        self.targets = self._targets()
        self._require_label_lists()
        self.tables = [name for name in study.tables if self.table_evaluations(name)]
        self.left_out = ""
        if left := [name for name in self.asked if not self.is_possible(name)]:
            missing = "labels" if not self.facts.labels else "validation images"
            tables = [f"table {name}" for name in study.tables if name not in self.tables]
            what = "evaluations and tables" if left == self.asked else ", ".join([*left, *tables])
            self.left_out = f"{what}, because the data have no {missing}."

    def path(self, name: str) -> str:
        """Return the path of a file of the study."""
        return f"results/{self.study.study}/{name}"

    def paths(self, pattern: str, names: Iterable[str]) -> list[str]:
        """Return the path of ``pattern`` filled with each name."""
        return [self.path(pattern.format(name)) for name in names]

    @property
    def packed(self) -> bool:
        """Whether the study asks for its images in one file."""
        return isinstance(self.study.data, FolderData) and self.study.data.pack is not None

    def listing(self, split: str, target: str = "") -> str:
        """Return the listing of the study's own images, the pack of them where there is one, or of another set."""
        if target:
            return self.path(f"data/{target}/{split}-listing.h5")
        return self.path(f"data/{split}.h5" if self.packed else f"data/{split}-listing.h5")

    def weights(self, model: str, seed: int) -> str:
        """Return the weights of a teacher or of a student."""
        if model in self.study.teachers:
            return self.path(f"teachers/{model}.safetensors")
        return self.path(f"students/{model}/seed-{seed}/backbone.safetensors")

    def all_weights(self) -> list[str]:
        """Return the weights of every teacher and student."""
        models = [*self.study.teachers, *self.study.students]
        return [self.weights(model, seed) for model in models for seed in model_seeds(self.study, model)]

    def targets_of(self, student: str) -> list[str]:
        """Return a student's stored teacher outputs: `<teacher>/<views>-<precision>-<layer>-<number>-<views>`."""
        entry, teacher, views = self.study.students[student], self.study.teacher_of(student), None
        if teacher is None or (views := entry.stored_views()) is None:
            return []
        drawn = f"{teacher}/{entry.training.views}-{entry.training.precision}-{entry.layer}"
        return [f"{drawn}-{number}-{views}" for number in entry.teacher_view_slots()]

    def trained_teachers(self) -> list[str]:
        """Return the teachers that the study trains itself."""
        return [name for name in self.study.teachers if name not in self.checkpoints()]

    def checkpoints(self) -> dict[str, str]:
        """Return the files of imported teachers, by name."""
        teachers = self.study.teachers.items()
        return {name: entry.checkpoint for name, entry in teachers if isinstance(entry, ImportedTeacher)}

    def is_possible(self, evaluation: str) -> bool:
        """Tell whether the data allow an evaluation; other sets always do."""
        target, _ = self.study.split_evaluation(evaluation)
        return bool(target) or (self.facts.labels and self.facts.validation)

    def possible_evaluations(self) -> list[str]:
        """Return the study's evaluations that the data allow."""
        return [name for name in self.study.evaluations if self.is_possible(name)]

    def table_evaluations(self, table: str) -> list[str]:
        """Return the evaluations that a table shows, of those that the data allow."""
        shown = self.study.tables[table].evaluations
        return [name for name in (self.study.evaluations if shown is None else shown) if self.is_possible(name)]

    def detections(self) -> list[str]:
        """Return the evaluations that train detectors."""
        return [name for name in self.asked if self._coco(name) is not None]

    def classifications(self) -> list[str]:
        """Return the evaluations that classify images."""
        return [name for name in self.asked if self._coco(name) is None]

    def results(self, models: Iterable[str], protocols: Iterable[str]) -> list[str]:
        """Return the result files of some teachers and students by some protocols, for all their seeds."""
        return [
            self.result(model, seed, protocol)
            for model in models
            for seed in model_seeds(self.study, model)
            for protocol in protocols
        ]

    def result(self, model: str, seed: int, evaluation: str) -> str:
        """Return the result file of a teacher, or of a student with one seed."""
        return self.path(f"evaluation/{model}/seed-{seed}/{evaluation}.json")

    def all_results(self) -> list[str]:
        """Return every result file that the data allow."""
        results = self.results([*self.study.teachers, *self.study.students], self.possible_evaluations())
        for table in self.tables:
            results += self.table_results(table)
        return list(dict.fromkeys(results))

    def network_results(self, model: str, seed: int) -> list[str]:
        """Return the result files of a teacher, or of a student with one seed."""
        return self.paths(f"evaluation/{model}/seed-{seed}/{{}}.json", self.possible_evaluations())

    def table_results(self, table: str) -> list[str]:
        """Return the result files of a table."""
        models = [row.model for row in table_rows(self.study, table)]
        return self.results(models, self.table_evaluations(table))

    def training_logs(self) -> dict[str, str]:
        """Return the training log of every teacher and of every seed of every student, by name."""
        logs = {name: self.path(f"teachers/{name}.csv") for name in self.trained_teachers()}
        for student in self.study.students:
            for seed in self.study.seeds:
                logs[f"{student}/seed-{seed}"] = self.path(f"students/{student}/seed-{seed}/log.csv")
        return logs

    def figures(self) -> list[str]:
        """Return the names of all figures, in the order of the report."""
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
        """Return the evaluations to draw against bag size; none where the study has no students for it."""
        return self.possible_evaluations() if bag_size_series(self.study) else []

    def bag_size_results(self) -> list[str]:
        """Return the results to draw against bag size."""
        students = [name for series in bag_size_series(self.study) for name in series.sizes]
        return self.results(students, self.bag_size_evaluations())

    def map_split(self) -> Literal["train", "val"]:
        """Return the images whose features are drawn: validation images, where there are any."""
        return "val" if self.facts.validation else "train"

    def sheets(self) -> dict[str, str]:
        """Return all contact sheets by `<bags>/<page>`; bags without labels or similarities have no best and worst."""
        sheets = {}
        for name, bag in self.study.bags.items():
            sheets[f"{name}/random"] = self.path(f"bags/{name}.png")
            ranked = ["best", "worst"] if self.facts.labels or isinstance(bag, KnnBag) else []
            for page in ("more", *ranked):
                sheets[f"{name}/{page}"] = self.path(f"figures/{page}-{name}.png")
        return sheets

    def benchmarks(self) -> dict[str, list[str]]:
        """Return by stage where Snakemake notes what each job has cost."""
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
        """Return the teachers whose features bags are made from."""
        teachers = (bag.named_teacher() for bag in self.study.bags.values())
        return list(dict.fromkeys(teacher for teacher in teachers if teacher is not None))

    def faults(self, since: float) -> list[str]:
        """Return what jobs have logged as errors after ``since`` (seconds of the clock): `<log>: <error>`."""
        faults = []
        for path in sorted(Path("logs", self.study.study).rglob("*.log")):
            if path.stat().st_mtime >= since:
                lines = (line.partition(" error: ") for line in path.read_text(encoding="utf-8").splitlines())
                faults += [f"{path}: {fault}" for _, found, fault in lines if found]
        return faults

    def _coco(self, evaluation: str) -> CocoSet | None:
        target, _ = self.study.split_evaluation(evaluation)
        images = self.study.target(target) if target else None
        return images if isinstance(images, CocoSet) else None

    def _targets(self) -> dict[str, SourceFacts]:
        """Look at the other sets of images that evaluations use."""
        found = {}
        for evaluation in self.asked:
            target, _ = self.study.split_evaluation(evaluation)
            if not target or target in found:
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
                raise BingoError(f"{key}: has no {missing} to evaluate with; add them, or leave {evaluation} out")
            found[target] = facts
        return found

    def label_lists(self) -> Mapping[str, str]:
        """Return the files that name the images whose labels are used, by protocol."""
        data = self.study.data
        return {str(name): path for name, path in data.label_lists.items()} if isinstance(data, FolderData) else {}

    def _require_label_lists(self) -> None:
        for name, path in self.label_lists().items():
            _require_file(f"data.label_lists.{name}", path)
        for name in self.asked:
            if isinstance(PROTOCOLS.get(name), Finetune) and self.facts.is_imagenet and name not in self.label_lists():
                raise BingoError(
                    f"data.label_lists: on ImageNet {name} uses SimCLR's list of images; name that file "
                    "(github.com/google-research/simclr, imagenet_subsets)"
                )

    def _require_checkpoints(self) -> None:
        for name, path in self.checkpoints().items():
            # One that lies among the study's results may be a student that has yet to be trained.
            if not Path(path).is_file() and not path.startswith(self.path("")):
                raise BingoError(f"teachers.{name}.checkpoint: there is no file {path}; correct the path")
            _refuse_braces(f"teachers.{name}.checkpoint", path)


def _require_file(key: str, path: str) -> None:
    if not Path(path).is_file():
        raise BingoError(f"{key}: there is no file {path}; correct the path")
    _refuse_braces(key, path)


def _require_columns(key: str, path: str) -> None:
    """Refuse now what would be no table of published numbers at the end of a study."""
    with Path(path).open(encoding="utf-8", errors="replace", newline="") as file:
        columns = next(csv.reader(file), [])
    needed = ("method", "student", "teacher", "protocol", "metric", "published", "source")
    if missing := [name for name in needed if name not in columns]:
        raise BingoError(f"{key}: {path} lacks the columns {', '.join(missing)}; config/paper has examples")


def _refuse_braces(key: str, path: str) -> None:
    if "{" in path or "}" in path:
        raise BingoError(f"{key}: {path} has braces, which Snakemake cannot take; rename it")


def _require_enough(study: Study, images: int) -> None:
    """Refuse now what would fail once the training images are listed."""
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
    for key, (found, needed) in needs.items():
        if needed > images:
            raise BingoError(f"{key}: {found} needs {needed} training images, but there are {images}; lower it")


def plan_or_exit(config: Mapping[str, Any], files: Iterable[object]) -> Plan:
    """Return the plan of the study that Snakemake has read, or end the process with one line and exit code 1."""
    try:
        return Plan(parse_study(config, ", ".join(str(file) for file in files) or "config"))
    except BingoError as error:
        print(f"bingo: error: {error}", file=sys.stderr)
        sys.exit(1)
