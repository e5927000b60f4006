"""What each job is given: all that its result depends on, and nothing else, so that it is made again only then."""

import json

import pytest

from bingo.study.jobs import DataJob, EvaluationJob, ImportJob, StudentJob, TargetsJob
from bingo.study.report_contents import bag_size_series, model_seeds, table_rows
from bingo.study.report_jobs import AccuracyFigureJob, TrainingFigureJob
from bingo.study.schema import parse_study
from tests.study.every_job import STUDY, changed, every_job, make_data, plan_of


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    """The studies' images, in the working folder."""
    folder = tmp_path_factory.mktemp("data")
    make_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@pytest.fixture(scope="module")
def original(data):
    """Settings of every job of the study, by the job's name."""
    return identities(STUDY)


def study_of(raw):
    return parse_study(raw, "s.yaml")


def identities(raw):
    return {name: job.identity for name, job in every_job(raw).items()}


NETWORKS = ("big", "given", *STUDY["students"])
STUDENTS = {f"{name} {seed}" for name in STUDY["students"] for seed in (0, 1)}
RUNS = {"big 0", "given 0", *STUDENTS}
CLASSIFIED = {f"{name} {run}" for name in ("knn-10", "flowers-linear", "semi-1") for run in RUNS}
DETECTED = {f"coco-mask-rcnn {run}" for run in RUNS}
MAPS = {f"map {name}" for name in NETWORKS}
EMBEDDINGS = {"embeddings big", "embeddings given"}
# An imported teacher is read, not trained.
TRAINED = {*(f"student {run}" for run in STUDENTS), "targets seed", "teacher big"}

# Of a changed key, the jobs whose results it may change, beside the report, which shows the study file.
CHANGES = {
    "study": ("other", set()),
    "seeds": ([0, 1, 2], set()),
    "data.workers": (4, set()),
    "data.label_lists": ({"semi-1": "lists/1percent.txt"}, set()),  # the file itself is an input
    "data.val": ("elsewhere", {"data val"}),
    "data.max_val": (10, {"data val"}),
    "data.max_train": (1000, {"data train"}),
    "data.on_bad_image": ("skip", {"data train", "data val"}),
    "data.pack": ({"shorter_side": 320, "quality": 90}, {"pack train", "pack val"}),
    "transfer.flowers": (
        {"source": "folder", "train": "flowers/train", "held_out": 0.2},
        {"flowers train", "flowers val"},
    ),
    "data.preprocessing": ({"resize": 300}, {*EMBEDDINGS, *CLASSIFIED, *MAPS}),
    # Detectors see images in a size of their own.
    "data.preprocessing ": ({"size": 192}, {*EMBEDDINGS, *CLASSIFIED, *MAPS, *TRAINED}),
    "data.preprocessing  ": ({"mean": [0.5, 0.5, 0.5]}, {*EMBEDDINGS, *CLASSIFIED, *DETECTED, *MAPS, *TRAINED}),
    "data.preprocessing   ": ({"decoder": "nvjpeg"}, {*EMBEDDINGS, *CLASSIFIED, *MAPS, *TRAINED}),
    "teachers.big.training": ({"epochs": 9}, {"teacher big"}),
    "teachers.given.checkpoint": ("moved/given.pt", set()),
    "teachers.given.part": ("encoder_k", {"teacher given"}),
    # Of bags, students know the kind.
    "bags.knn-9.size": (10, {"bags knn-9", "bag size", "student bingo-9 0", "student bingo-9 1"}),
    "bags.knn-9.search": ({"ivf": {"lists": 9, "probes": 2}}, {"bags knn-9", "bag size"}),
    "bags.classes": ({"criterion": "random"}, {"bags classes", "student label 0", "student label 1"}),
    "students.alone.training": ({"lr": 0.5}, {"student alone 0", "student alone 1"}),
    "students.seed.temperature": (0.5, {"student seed 0", "student seed 1"}),
    "students.seed.teacher_views": (3, {"student seed 0", "student seed 1", "targets seed"}),
    "students.label.bags": ("knn-5", {"student label 0", "student label 1", "table all", "bag size"}),
    "transfer.flowers.val": ("elsewhere", {"flowers val"}),
    "transfer.flowers.train": ("elsewhere", {"flowers train", "flowers val"}),  # its classes are those of validation
    "transfer.flowers.max_train": (10, {"flowers train"}),
    "transfer.coco.train": ("elsewhere", set()),  # a folder with so many pictures is no input; its annotations are
    "transfer.coco.val_annotations": ("elsewhere.json", set()),
    "evaluations": (["knn-10"], {"table all", "bag size"}),
    "tables.some.title": ("Another", {"text some"}),
    "tables.some.published": ("other.csv", set()),
    "tables.some.evaluations": (["semi-1"], {"table some"}),
    "tables.some.students": (["alone"], {"table some", "accuracy some"}),
    "tables.some.teachers": (False, {"table some"}),
    "tables.all": (None, set()),
}  # fmt: skip


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_is_in_the_settings_of_exactly_those_jobs_whose_results_it_may_change(key, original):
    value, expected = CHANGES[key]
    if key == "students.label.bags":  # bags name their teacher
        raw = changed("students.label", {**STUDY["students"]["label"], "bags": value, "teacher": "big"})
    else:
        raw = changed(key.strip(), value)
    found = identities(raw)
    moved = {name for name in found if name in original and found[name] != original[name]}
    assert moved - {"report"} == expected
    assert ("report" in moved) == (key != "data.workers")


def test_another_student_moves_nothing_but_what_shows_it(original):
    more = {**STUDY["students"], "another": STUDY["students"]["seed"]}
    found = identities(changed("students", more))
    moved = {name for name in original if found[name] != original[name]}
    assert moved == {"report", "table all", "accuracy all", "training"}


def test_a_student_that_no_table_shows_does_not_move_their_figures():
    tables = {"some": STUDY["tables"]["some"]}
    before, after = ({**STUDY, "tables": tables} for _ in range(2))
    after["students"] = {**STUDY["students"], "another": STUDY["students"]["seed"]}
    first, second = identities(before), identities(after)
    assert {name for name in first if first[name] != second[name]} == {"report", "training"}


def test_the_name_of_a_student_is_no_part_of_how_it_is_trained(original):
    after = identities(json.loads(json.dumps(STUDY).replace('"bingo-5"', '"first"')))
    for seed in (0, 1):
        assert after[f"student first {seed}"] == original[f"student bingo-5 {seed}"]
    # Results say whose they are.
    assert json.loads(after["knn-10 first 0"]) == {**json.loads(original["knn-10 bingo-5 0"]), "model": "first"}


def test_the_name_of_a_teacher_is_no_part_of_how_it_or_its_students_are_trained(original):
    after = identities(json.loads(json.dumps(STUDY).replace('"given"', '"taken"').replace('"big"', '"large"')))
    assert after["teacher large"] == original["teacher big"]
    assert after["teacher taken"] == original["teacher given"]
    assert after["embeddings large"] == original["embeddings big"]
    for name in original:
        if name.startswith(("student ", "targets ")):
            assert after[name] == original[name]


def test_the_name_of_bags_is_no_part_of_how_they_are_made_or_students_trained_from_them(original):
    after = every_job(json.loads(json.dumps(STUDY).replace('"knn-5"', '"near"').replace('"classes"', '"perfect"')))
    assert after["student bingo-5 0"].inputs["bags"] == "results/s/bags/near.h5"
    for renamed, name in (("near", "knn-5"), ("perfect", "classes")):
        assert after[f"bags {renamed}"].identity == original[f"bags {name}"]
    moved = {name for name in original if name in after and after[name].identity != original[name]}
    assert moved == {"table all", "table some", "report"}  # which name them


def test_the_name_of_bags_that_only_tell_the_teacher_is_no_part_of_how_a_student_is_trained():
    raw = changed("students.bingo-5.terms", ["intra"])
    renamed = json.loads(json.dumps(raw).replace('"knn-5"', '"near"'))
    before, after = (every_job(study)["student bingo-5 0"] for study in (raw, renamed))
    assert before.identity == after.identity
    assert "bags" not in before.inputs


def test_bags_of_another_kind_are_part_of_how_a_student_is_trained(original):
    kinds = [json.loads(original[f"student {name} 0"])["student"]["bags"] for name in ("bingo-5", "bingo-9", "label")]
    assert kinds == ["knn-5", "knn-9", "label"]


def test_seeds_have_settings_of_their_own(original):
    for job in ("student alone", "knn-10 alone", "coco-mask-rcnn alone"):
        first, second = (json.loads(original[f"{job} {seed}"]) for seed in (0, 1))
        assert (first.pop("seed"), second.pop("seed")) == (0, 1)
        assert first == second


def test_settings_are_canonical(original):
    def reversed_keys(value):
        return {key: reversed_keys(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    for name, text in identities(reversed_keys(STUDY)).items():
        if name != "table all":  # which shows networks in the order of the study
            assert text == original[name]
    for text in original.values():
        assert text == json.dumps(json.loads(text), sort_keys=True)


def test_a_default_that_is_written_out_moves_nothing(original):
    assert identities(study_of(STUDY).model_dump(mode="json")) == original


def test_settings_name_no_files_but_those_of_the_studys_images_and_of_the_report(original):
    for name, text in original.items():
        if not name.startswith(("data ", "flowers t", "flowers v", "report")):
            assert "/" not in text


def test_the_version_of_a_stage_is_in_the_settings_of_its_jobs():
    for job in every_job(STUDY).values():
        assert json.loads(job.identity)["version"] == job.STAGE_VERSION


def test_a_share_that_is_not_held_out_is_in_no_settings(original):
    # So listings and reports of studies older than the key are not made again.
    assert not [name for name, text in original.items() if "held_out" in text]
    held_out = changed("transfer.flowers", {"source": "folder", "train": "flowers/train", "held_out": 0.2})
    assert DataJob.of(plan_of(held_out), "train", "flowers").settings["data"]["held_out"] == 0.2


def test_the_side_before_the_centre_is_cut_out_follows_from_the_input_unless_it_is_said():
    for preprocessing, expected in (
        ({}, (224, 256)),
        ({"size": 32}, (32, 37)),
        ({"size": 32, "resize": 32}, (32, 32)),
        ({"resize": 300}, (224, 300)),
    ):
        found = every_job(changed("data.preprocessing", preprocessing))["embeddings big"].preprocessing
        assert (found.size, found.resize) == expected


def test_each_stage_is_given_its_part_of_the_study():
    study, jobs = study_of(STUDY), every_job(STUDY)
    assert jobs["teacher big"].teacher == study.teachers["big"]
    assert jobs["student seed 1"].student == study.students["seed"]
    assert jobs["student seed 1"].seed == 1
    assert jobs["report"].study == study
    assert jobs["data train"].data.train == "photos/train"
    assert jobs["flowers val"].data.val == "flowers/val"
    assert jobs["bags knn-9"].bags == study.bags["knn-9"]
    assert jobs["knn-10 alone 0"].preprocessing == study.data.preprocessing
    network_input = study.data.preprocessing.network_input()
    assert all(jobs[name].preprocessing == network_input for name in ("teacher big", "student seed 0", "targets seed"))


@pytest.mark.parametrize(
    "entry",
    [
        {"method": "moco", "head": {"hidden": 64}, "training": {"schedule": {"milestones": [2, 4], "factor": 0.5}}},
        {"method": "bingo", "bags": "knn-5"},
        {"method": "bingo", "bags": "classes", "teacher": "big", "teacher_views": 3},
        {"method": "bingo", "bags": "knn-5", "objective": "official", "terms": ["inter"], "inter_free_epochs": 0},
        {"method": "bingo", "bags": "knn-5", "teacher_batch_norm": "batch"},
        {"method": "seed", "teacher": "big"},
        {"method": "disco", "teacher": "big", "teacher_views": 5},
        {"method": "compress", "teacher": "big", "variant": "1q", "teacher_views": 4},
        {"method": "compress", "teacher": "big", "backbone": {"architecture": "timm/resnet18"}},
    ],
    ids=json.dumps,
)
def test_a_student_of_every_kind_reaches_its_stage_whole_but_for_the_names_of_teacher_and_bags(entry):
    plan = plan_of(changed("students.alone", {"backbone": {"architecture": "resnet18"}, **entry}))
    job, student = StudentJob.of(plan, "alone", 1), plan.study.students["alone"]
    if "bags" in entry:
        student = student.model_copy(update={"bags": plan.study.bags[entry["bags"]].kind()})
    if hasattr(student, "teacher"):
        student = student.model_copy(update={"teacher": None})
        assert "teacher" not in job.settings["student"]
    read = StudentJob.read(job.identity, {"name": "alone", "listing": job.listing, "output": job.output})
    assert read.student == student


def test_a_result_is_named_as_the_study_asked_for_it():
    for name in ("knn-10", "flowers-linear", "semi-1", "coco-mask-rcnn"):
        assert every_job(STUDY)[f"{name} alone 0"].evaluation == name
    job = EvaluationJob.of(plan_of(STUDY), "alone", 0, "flowers-linear")
    assert (job.target, job.protocol) == ("flowers", "linear")


@pytest.mark.parametrize("position", range(5))
def test_every_part_of_how_teacher_views_are_drawn_is_in_the_settings_of_targets(position):
    drawn = ("paper", "auto", "projection", 0, 3)
    others = ("small", "float32", "features", 1, 4)
    one = [*drawn[:position], others[position], *drawn[position + 1 :]]
    plan = plan_of(STUDY)
    assert TargetsJob.of(plan, "big", *one).identity != TargetsJob.of(plan, "big", *drawn).identity


@pytest.mark.parametrize("key", ["format", "part", "architecture"])
def test_what_an_imported_teacher_is_said_to_be_is_in_its_settings(key, original):
    value = {"format": "swav", "part": "teacher", "architecture": "resnet18"}[key]
    job = ImportJob.of(plan_of(changed(f"teachers.given.{key}", value)), "given")
    assert job.settings == {**json.loads(original["teacher given"]), key: value}
    assert "checkpoint" not in job.settings


def names(rows):
    return [(row.model, row.method, row.student, row.teacher, row.bags, row.architecture) for row in rows]


TEACHERS = [("big", "moco", "", "big", "", ""), ("given", "imported", "", "given", "", "")]
ALONE = ("alone", "moco", "alone", "", "", "resnet18")
BINGO = ("bingo-5", "bingo", "bingo-5", "big", "knn-5", "resnet18")


def test_a_table_has_all_networks_or_those_it_names_below_their_teachers():
    study = study_of(STUDY)
    rows = names(table_rows(study, "all"))
    assert rows[:4] == [*TEACHERS, ALONE, BINGO]
    assert rows[5:] == [
        ("label", "bingo", "label", "given", "classes", ""),
        ("seed", "seed", "seed", "given", "", "resnet18"),
    ]
    assert names(table_rows(study, "some")) == [TEACHERS[0], BINGO, ALONE]
    without = study_of(changed("tables.some.teachers", False))
    assert names(table_rows(without, "some")) == [BINGO, ALONE]
    assert names(table_rows(study_of(changed("tables.some.students", ["alone"])), "some")) == [ALONE]
    # Bags from which nothing is drawn have no part in a student.
    intra = study_of(changed("students.bingo-5.terms", ["intra"]))
    assert names(table_rows(intra, "some"))[1] == ("bingo-5", "bingo", "bingo-5", "big", "", "")


@pytest.mark.parametrize(
    ("change", "published"),
    [
        ({}, "resnet18"),
        ({"objective": "official"}, "resnet18"),
        ({"bags": "knn-9"}, "resnet18"),
        ({"bags": "classes", "teacher": "big"}, ""),
        ({"terms": ["inter"]}, ""),
        ({"backbone": {"architecture": "resnet18", "width": 0.5}}, ""),
        ({"backbone": {"architecture": "resnet18", "stem": "small"}}, ""),
        ({"backbone": {"architecture": "resnet34"}}, "resnet34"),
    ],
)
def test_publications_know_whole_networks_and_bags_of_neighbours(change, published):
    study = study_of(changed("students.bingo-5", {**STUDY["students"]["bingo-5"], **change}))
    assert {row.model: row.architecture for row in table_rows(study, "some")}["bingo-5"] == published


def test_a_teacher_has_results_for_its_own_seed_a_student_for_those_of_the_study():
    study = study_of(changed("teachers.big.seed", 7))
    seeds = {model: model_seeds(study, model) for model in ("big", "given", "alone")}
    assert seeds == {"big": [7], "given": [0], "alone": [0, 1]}


def series(**students):
    raw = changed("bags.other", {"criterion": "knn", "teacher": "given", "size": 3})
    raw["bags"]["kmeans"] = {"criterion": "kmeans", "teacher": "big", "clusters": 9}
    raw["bags"]["again"] = raw["bags"]["knn-5"]
    raw["students"] = {**STUDY["students"], **students}
    return [(found.label, found.sizes) for found in bag_size_series(study_of(raw))]


def test_students_that_differ_in_nothing_but_the_size_of_their_bags_are_a_series():
    student = STUDY["students"]["bingo-5"]
    first = ("bingo paper, resnet18 from big", {"bingo-5": 5, "bingo-9": 9})
    assert series() == [first]
    faster = {**student, "training": {"lr": 0.5}}
    kmeans, other = {**student, "bags": "kmeans"}, {**student, "bags": "other"}
    assert series(faster=faster, kmeans=kmeans, other=other) == [first]
    # To name the teacher that its bags have anyway is no difference.
    assert series(named={**student, "bags": "knn-9", "teacher": "big"}) == [
        (first[0], {"bingo-5": 5, "bingo-9": 9, "named": 9})
    ]
    wide = {**student, "backbone": {"architecture": "resnet18", "width": 0.5}, "objective": "official"}
    assert series(wide=wide, wider={**wide, "bags": "knn-9"})[1] == (
        "bingo official, resnet18, width 0.5 from big",
        {"wide": 5, "wider": 9},
    )
    terms = {**student, "terms": ["inter"]}
    assert series(terms=terms, more={**terms, "bags": "knn-9"})[1][0] == "bingo paper inter, resnet18 from big"
    # Two students of one size are no series: there is nothing to draw it against.
    assert series(faster=faster, again={**faster, "bags": "again"}) == [first]
    # Nor do bags differ in nothing but their size that were searched in different ways.
    raw = {**STUDY, "bags": {**STUDY["bags"], "knn-9": {**STUDY["bags"]["knn-9"], "search": {"ivf": {}}}}}
    assert bag_size_series(study_of(raw)) == []
    # Students that draw nothing from their bags do not differ by them.
    intra = {**student, "terms": ["intra"]}
    assert series(intra=intra, more={**intra, "bags": "knn-9"}) == [first]


def test_losses_that_compare_have_one_panel():
    students = {**STUDY["students"], "official": {**STUDY["students"]["bingo-5"], "objective": "official"}}
    students["one"] = {
        "method": "compress",
        "variant": "1q",
        "teacher": "big",
        "backbone": {"architecture": "resnet18"},
    }
    assert TrainingFigureJob.of(plan_of(changed("students", students))).panels == {
        "big": "moco",
        "alone": "moco",
        "bingo-5": "bingo paper",
        "bingo-9": "bingo paper",
        "label": "bingo paper",
        "seed": "seed",
        "official": "bingo official",
        "one": "compress 1q",
    }


def test_figures_name_networks_as_they_are_printed():
    raw = changed("students.alone.backbone", {"architecture": "resnet10", "stem": "small", "width": 0.0625})
    job = AccuracyFigureJob.of(plan_of(raw), "all")
    assert job.architectures["alone"] == "resnet10, width 0.0625"
    assert job.architectures["seed"] == "resnet18"
