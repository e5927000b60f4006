"""Jobs of the stages that present results: tables, figures, contact sheets, and the report."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from bingo.study.job import Device, Exclusion, Input, Inputs, Job, NamedInputs, OptionalInput, Output, Outputs, Role
from bingo.study.plan import Plan
from bingo.study.report_contents import (
    BagSizeSeries,
    TableRow,
    architecture_label,
    bag_size_series,
    model_seeds,
    table_rows,
    training_panels,
)
from bingo.study.schema import Study
from bingo.study.sections import Preprocessing

Page = Literal["random", "more", "best", "worst"]


class TableJob(Job):
    """Collect result files in a tidy CSV."""

    STAGE: ClassVar[str] = "table"
    STAGE_VERSION: ClassVar[int] = 2

    rows: list[TableRow]
    evaluations: list[str]
    published: OptionalInput = None
    """CSV of published numbers."""
    results: Inputs = Field(default=[])
    """Result files of the evaluation stage; repeat the option for each."""
    output: Output
    """CSV to write."""

    @classmethod
    def of(cls, plan: Plan, table: str) -> Self:
        """Return the job of one table, with the evaluations that the data support."""
        published = plan.study.tables[table].published
        return cls(
            rows=table_rows(plan.study, table),
            evaluations=plan.table_evaluations(table),
            published=None if published is None else Path(published),
            results=[Path(path) for path in plan.table_results(table)],
            output=Path(plan.path(f"tables/{table}.csv")),
        )


class TableTextJob(Job):
    """Render a table as Markdown and LaTeX."""

    STAGE: ClassVar[str] = "table_text"
    STAGE_VERSION: ClassVar[int] = 2

    title: str
    table: Input
    """CSV of a table."""
    markdown: Output
    """Markdown to write."""
    latex: Output
    """LaTeX to write."""

    @classmethod
    def of(cls, plan: Plan, table: str) -> Self:
        """Return the job of one table."""
        csv, markdown, latex = (Path(plan.path(f"tables/{table}.{suffix}")) for suffix in ("csv", "md", "tex"))
        return cls(title=plan.study.tables[table].title, table=csv, markdown=markdown, latex=latex)


class SheetsJob(Job):
    """Draw contact sheets of bags."""

    STAGE: ClassVar[str] = "sheets"
    STAGE_VERSION: ClassVar[int] = 2

    listing: Input
    """Listing of the training images (data stage)."""
    bags: Input
    """Bags to show."""
    pages: Annotated[dict[Page, Path], Role.OUTPUT]
    """PNG to write, as PAGE=PNG; PAGE is random, more, best or worst."""


class FigureJob(Job):
    """Draw a figure."""

    STAGE_VERSION: ClassVar[int] = 2

    output: Outputs
    """SVG or PNG to write; repeat the option for each."""


def _pictures(plan: Plan, name: str) -> list[Path]:
    return [Path(plan.path(f"figures/{name}.{suffix}")) for suffix in ("svg", "png")]


class AccuracyFigureJob(FigureJob):
    """Draw the numbers of a table, with one line per network and one panel per protocol."""

    STAGE: ClassVar[str] = "accuracy_figure"

    architectures: dict[str, str]
    """Label of each student's architecture."""
    table: Input
    """CSV of a table."""

    @classmethod
    def of(cls, plan: Plan, table: str) -> Self:
        """Return the job of one table."""
        students = [row.student for row in table_rows(plan.study, table) if row.student]
        return cls(
            architectures={name: architecture_label(plan.study.students[name].backbone) for name in students},
            table=Path(plan.path(f"tables/{table}.csv")),
            output=_pictures(plan, f"accuracy-{table}"),
        )


class BagSizeFigureJob(FigureJob):
    """Draw accuracy against bag size."""

    STAGE: ClassVar[str] = "bag_size_figure"

    series: list[BagSizeSeries]
    evaluations: list[str]
    results: Inputs = Field(default=[])
    """Result files of the evaluation stage; repeat the option for each."""

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Return the job of the study."""
        return cls(
            series=bag_size_series(plan.study),
            evaluations=plan.bag_size_evaluations(),
            results=[Path(path) for path in plan.bag_size_results()],
            output=_pictures(plan, "bag-size"),
        )


class TrainingFigureJob(FigureJob):
    """Draw training curves."""

    STAGE: ClassVar[str] = "training_figure"

    panels: dict[str, str]
    """Panel title of each teacher and student."""
    logs: NamedInputs
    """Training log, as NAME=CSV; all NAME/seed-N share the style of NAME."""

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Return the job of the study."""
        logs = {name: Path(path) for name, path in plan.training_logs().items()}
        return cls(panels=training_panels(plan.study), logs=logs, output=_pictures(plan, "training"))


class PurityFigureJob(FigureJob):
    """Draw the fraction of nearest neighbours with the image's class, against the number of neighbours."""

    STAGE: ClassVar[str] = "purity_figure"

    listing: Input
    """Listing of the training images (data stage)."""
    embeddings: Input
    """Embeddings of the training images."""
    teacher: Input
    """The teacher that computed the embeddings."""

    @classmethod
    def of(cls, plan: Plan, teacher: str) -> Self:
        """Return the job of one teacher."""
        return cls(
            listing=Path(plan.listing("train")),
            embeddings=Path(plan.path(f"embeddings/{teacher}.h5")),
            teacher=Path(plan.weights(teacher, 0)),
            output=_pictures(plan, f"purity-{teacher}"),
        )


class SimilarityFigureJob(FigureJob):
    """Draw a histogram of the similarity between anchors and the members of their bags."""

    STAGE: ClassVar[str] = "similarity_figure"

    listing: Input
    """Listing of the training images (data stage)."""
    bags: Input
    """Bags of nearest neighbours."""

    @classmethod
    def of(cls, plan: Plan, bags: str) -> Self:
        """Return the job of one entry of `bags`."""
        return cls(
            listing=Path(plan.listing("train")),
            bags=Path(plan.path(f"bags/{bags}.h5")),
            output=_pictures(plan, f"similarity-{bags}"),
        )


class MapFigureJob(FigureJob):
    """Draw a t-SNE map of a network's features."""

    STAGE: ClassVar[str] = "map_figure"
    DEVICE: ClassVar[Device] = "one"

    preprocessing: Preprocessing
    model: str
    listing: Input
    """Listing of the images to show (data stage)."""
    split: Annotated[Literal["train", "val"], Role.OPTION]
    """Split of the listing."""
    weights: Input
    """Backbone of a student, or a teacher."""

    @classmethod
    def of(cls, plan: Plan, model: str) -> Self:
        """Return the job of one network; students use their first seed."""
        return cls(
            preprocessing=plan.study.data.preprocessing,
            model=model,
            listing=Path(plan.listing(plan.map_split())),
            split=plan.map_split(),
            weights=Path(plan.weights(model, model_seeds(plan.study, model)[0])),
            output=_pictures(plan, f"map-{model}"),
        )


class ReportJob(Job):
    """Write the report of a study as one HTML page."""

    STAGE: ClassVar[str] = "report"
    STAGE_VERSION: ClassVar[int] = 2

    study: Study
    left_out: str
    """Parts of the study that the data do not support; may be empty."""
    table: Inputs = Field(default=[])
    """CSV of a table; repeat the option for each."""
    figure: Inputs = Field(default=[])
    """SVG of a figure; repeat the option for each."""
    sheet: NamedInputs = Field(default={})
    """Contact sheet, as BAGS/PAGE=PNG; repeat the option for each."""
    bags: Inputs = Field(default=[])
    """Bags; repeat the option for each."""
    model: Inputs = Field(default=[])
    """Teacher or student; repeat the option for each."""
    benchmark: Annotated[dict[str, list[Path]], Role.OPTION] = Field(default={})
    """Benchmark of a job, as STAGE=TSV; repeat the option for each."""
    output: Output
    """HTML to write."""

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Return the job of the study."""

        def paths(pattern: str, names: list[str]) -> list[Path]:
            return [Path(path) for path in plan.paths(pattern, names)]

        return cls(
            study=plan.study,
            left_out=plan.left_out,
            table=paths("tables/{}.csv", plan.tables),
            figure=paths("figures/{}.svg", plan.figures()),
            sheet={name: Path(path) for name, path in plan.sheets().items()},
            bags=paths("bags/{}.h5", list(plan.study.bags)),
            model=[Path(path) for path in plan.all_weights()],
            benchmark={stage: [Path(path) for path in files] for stage, files in plan.benchmarks().items()},
            output=Path(plan.path("report.html")),
        )

    def irrelevant(self) -> Exclusion:
        """Exclude the number of loader processes, which cannot change the report."""
        return {"study": {"data": {"workers"}}}
