"""Which files a study consists of, given what its data allow. Imports no torch: Snakemake asks this at every start."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bingo.config import ImportedTeacher, KmeansBag, KnnBag, LabelBag, RandomBag, Study, parse_study
from bingo.data.sources import facts_of
from bingo.errors import BingoError
from bingo.jobs import model_seeds, table_evaluations, table_rows
from bingo.methods.method import Distillation


class Plan:
    """Paths below results/<study>/, and the parts of the study that its data allow."""

    def __init__(self, study: Study) -> None:
        """Look at the study's data.

        Raises:
            BingoError: a data folder is missing or empty, or a bag or batch needs more images than there are.
        """
        self.study = study
        self.facts = facts_of(study.data)
        if self.facts.most_images is not None:
            _require_enough(study, self.facts.most_images)
        for name, bag in study.bags.items():
            if isinstance(bag, LabelBag) and not self.facts.labels:
                raise BingoError(f"bags.{name}: criterion label needs labels, which the data have not; take another")
        self._require_checkpoints()
        self.tables = list(study.tables)
        self.left_out = ""
        if study.evaluations and not (self.facts.labels and self.facts.validation):
            missing = "labels" if not self.facts.labels else "validation images"
            self.tables = []
            self.left_out = f"evaluations and tables, because the data have no {missing}."

    def path(self, name: str) -> str:
        """Return the path of a file of the study."""
        return f"results/{self.study.study}/{name}"

    def paths(self, pattern: str, names: Iterable[str]) -> list[str]:
        """Return the path of ``pattern`` filled with each name."""
        return [self.path(pattern.format(name)) for name in names]

    def weights(self, model: str, seed: int) -> str:
        """Return the weights of a teacher or of a student."""
        if model in self.study.teachers:
            return self.path(f"teachers/{model}.safetensors")
        return self.path(f"students/{model}/seed-{seed}/backbone.safetensors")

    def all_weights(self) -> list[str]:
        """Return the weights of every teacher and student."""
        models = [*self.study.teachers, *self.study.students]
        return [self.weights(model, seed) for model in models for seed in model_seeds(self.study, model)]

    def bags_inputs(self, bags: str) -> dict[str, str]:
        """Return what bags are made from beside the data: a teacher and its embeddings, or nothing."""
        teacher: str | None = getattr(self.study.bags[bags], "teacher", None)
        if teacher is None:
            return {}
        return {"teacher": self.weights(teacher, 0), "embeddings": self.path(f"embeddings/{teacher}.h5")}

    def student_inputs(self, student: str) -> dict[str, str | list[str]]:
        """Return what a student is trained from beside the data: a teacher or its stored outputs, and bags."""
        entry, teacher = self.study.students[student], self.study.teacher_of(student)
        inputs: dict[str, str | list[str]] = {}
        if isinstance(entry, Distillation) and teacher is not None:
            if entry.teacher_views == "online":
                inputs["teacher"] = self.weights(teacher, 0)
            else:
                drawn = f"{entry.training.views}-{entry.training.precision}-{entry.layer}"
                names = [f"{drawn}-{number}-{entry.teacher_views}" for number in entry.teacher_view_numbers()]
                inputs["targets"] = self.paths(f"targets/{teacher}/{{}}.h5", names)
        if (bags := self.study.bags_of(student)) is not None:
            inputs["bags"] = self.path(f"bags/{bags}.h5")
        return inputs

    def trained_teachers(self) -> list[str]:
        """Return the teachers that the study trains itself."""
        return [name for name in self.study.teachers if name not in self.checkpoints()]

    def checkpoints(self) -> dict[str, str]:
        """Return the files of imported teachers, by name."""
        teachers = self.study.teachers.items()
        return {name: entry.checkpoint for name, entry in teachers if isinstance(entry, ImportedTeacher)}

    def results(self, models: Iterable[str], protocols: Iterable[str]) -> list[str]:
        """Return the result files of some teachers and students by some protocols, for all their seeds."""
        return [
            self.path(f"evaluation/{model}/seed-{seed}/{protocol}.json")
            for model in models
            for seed in model_seeds(self.study, model)
            for protocol in protocols
        ]

    def all_results(self) -> list[str]:
        """Return every result file that the data allow."""
        if self.left_out:
            return []
        return self.results([*self.study.teachers, *self.study.students], self.study.evaluations)

    def table_results(self, table: str) -> list[str]:
        """Return the result files of a table."""
        models = [row.model for row in table_rows(self.study, table)]
        return self.results(models, table_evaluations(self.study, table))

    def training_logs(self) -> dict[str, str]:
        """Return the training log of every teacher and of every seed of every student, by name."""
        logs = {name: self.path(f"teachers/{name}.csv") for name in self.trained_teachers()}
        for student in self.study.students:
            for seed in self.study.seeds:
                logs[f"{student}/seed-{seed}"] = self.path(f"students/{student}/seed-{seed}/log.csv")
        return logs

    def faults(self, since: float) -> list[str]:
        """Return what jobs have logged as errors after ``since`` (seconds of the clock): `<log>: <error>`."""
        faults = []
        for path in sorted(Path("logs", self.study.study).rglob("*.log")):
            if path.stat().st_mtime >= since:
                lines = (line.partition(" error: ") for line in path.read_text(encoding="utf-8").splitlines())
                faults += [f"{path}: {fault}" for _, found, fault in lines if found]
        return faults

    def _require_checkpoints(self) -> None:
        for name, path in self.checkpoints().items():
            # One that lies among the study's results may be a student that has yet to be trained.
            if not Path(path).is_file() and not path.startswith(self.path("")):
                raise BingoError(f"teachers.{name}.checkpoint: there is no file {path}; correct the path")
            if "{" in path or "}" in path:
                raise BingoError(
                    f"teachers.{name}.checkpoint: {path} has braces, which Snakemake cannot take; rename it"
                )


def _require_enough(study: Study, images: int) -> None:
    """Refuse now what would fail once the training images are listed."""
    needs: dict[str, tuple[int, int]] = {}
    for name, bag in study.bags.items():
        if isinstance(bag, KnnBag | RandomBag):
            needs[f"bags.{name}.size"] = bag.size, bag.size + 1
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
