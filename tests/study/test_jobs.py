"""What each job is given: all that its result depends on, and nothing else, so that it is made again only then."""

import copy
import json
import warnings

import pytest
import yaml

from bingo import jobs, settings
from bingo.study.images import CocoSet
from bingo.study.teachers import ImportedTeacher
from bingo.study.schema import parse_study
from bingo.study.protocols import DETECTION_PROTOCOLS

STUDY = yaml.safe_load("""
study: s
seeds: [0, 1]
data: {source: folder, train: photos/train, val: photos/val, pack: {shorter_side: 320}}
teachers:
  big: {method: moco, backbone: &big {architecture: resnet50}}
  given: {checkpoint: given.pt}
bags:
  knn-5: {criterion: knn, teacher: big}
  knn-9: {criterion: knn, teacher: big, size: 9}
  classes: {criterion: label}
students:
  alone: {method: moco, backbone: &small {architecture: resnet18}}
  bingo-5: {method: bingo, bags: knn-5, backbone: *small}
  bingo-9: {method: bingo, bags: knn-9, backbone: *small}
  label: {method: bingo, bags: classes, teacher: given, backbone: *small}
  seed: {method: seed, teacher: given, teacher_views: 2, backbone: *small}
transfer:
  flowers: {source: folder, train: flowers/train, val: flowers/val}
  coco: {source: coco, train: c/train, train_annotations: c/train.json, val: c/val, val_annotations: c/val.json}
evaluations: [knn-10, flowers-linear]
tables:
  all: {title: All}
  some: {title: Some, students: [bingo-5, alone], evaluations: [semi-1, coco-mask-rcnn], published: paper.csv}
""")


def study_of(raw):
    return parse_study(raw, "s.yaml")


def changed(path, value):
    """Return the study with another value at a key; None takes the key away."""
    raw = copy.deepcopy(STUDY)
    *folders, key = path.split(".")
    section = raw
    for folder in folders:
        section = section[folder]
    section[key] = value
    if value is None:
        del section[key]
    return raw


def every_job(raw):
    """Return the settings of every job of a study, by the job's name."""
    study = study_of(raw)
    found = {"embeddings": settings.embeddings_settings(study), "report": settings.report_settings(study, "")}
    for split in ("train", "val"):
        found[f"data {split}"] = settings.data_settings(study, split)
        found[f"pack {split}"] = settings.pack_settings(study, split)
        for name, images in study.transfer.items():
            if not isinstance(images, CocoSet):
                found[f"{name} {split}"] = settings.transfer_data_settings(study, name, split)
    found |= {f"teacher {name}": settings.teacher_settings(study, name) for name in study.teachers}
    found |= {f"bags {name}": settings.bags_settings(study, name) for name in study.bags}
    for name, entry in study.students.items():
        found |= {f"student {name} {seed}": settings.student_settings(study, name, seed) for seed in study.seeds}
        if getattr(entry, "teacher_views", "online") != "online":
            drawn = (entry.training.views, entry.training.precision, entry.layer, 0, entry.teacher_views)
            found[f"targets {name}"] = settings.targets_settings(study, *drawn)
    evaluations = dict.fromkeys([*study.evaluations, *(e for t in study.tables.values() for e in t.evaluations or ())])
    for model in (*study.teachers, *study.students):
        found[f"map {model}"] = settings.map_figure_settings(study, model)
        for name in evaluations:
            detection = study.split_evaluation(name)[1] in DETECTION_PROTOCOLS
            kind = settings.detection_settings if detection else settings.evaluation_settings
            for seed in settings.model_seeds(study, model):
                found[f"{name} {model} {seed}"] = kind(study, model, name, seed)
    for name, table in study.tables.items():
        found[f"table {name}"] = settings.table_settings(study, name, table.evaluations or study.evaluations)
        found[f"text {name}"] = settings.text_settings(study, name)
        found[f"accuracy {name}"] = settings.accuracy_figure_settings(study, name)
    found["training"] = settings.training_figure_settings(study)
    found["bag size"] = settings.bag_size_figure_settings(study, study.evaluations)
    return found


ORIGINAL = every_job(STUDY)
CLASSIFIED = {name for name in ORIGINAL if name.split()[0] in ("knn-10", "flowers-linear", "semi-1")}
DETECTED = {name for name in ORIGINAL if name.startswith("coco-mask-rcnn ")}
MAPS = {name for name in ORIGINAL if name.startswith("map ")}
# An imported teacher is read, not trained.
TRAINED = {name for name in ORIGINAL if name.startswith(("student ", "targets "))} | {"teacher big"}

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
    "data.preprocessing": ({"resize": 300}, {"embeddings", *CLASSIFIED, *MAPS}),
    # Detectors see images in a size of their own.
    "data.preprocessing ": ({"size": 192}, {"embeddings", *CLASSIFIED, *MAPS, *TRAINED}),
    "data.preprocessing  ": ({"mean": [0.5, 0.5, 0.5]}, {"embeddings", *CLASSIFIED, *DETECTED, *MAPS, *TRAINED}),
    "data.preprocessing   ": ({"decoder": "nvjpeg"}, {"embeddings", *CLASSIFIED, *MAPS, *TRAINED}),
    "teachers.big.training": ({"epochs": 9}, {"teacher big"}),
    "teachers.given.checkpoint": ("moved/given.pt", set()),
    "teachers.given.part": ("encoder_k", {"teacher given"}),
    "bags.knn-9.size": (10, {"bags knn-9", "bag size"}),
    "bags.classes": ({"criterion": "random"}, {"bags classes"}),
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
def test_a_key_is_in_the_settings_of_exactly_those_jobs_whose_results_it_may_change(key):
    value, expected = CHANGES[key]
    if key == "students.label.bags":  # bags name their teacher
        raw = changed("students.label", {**STUDY["students"]["label"], "bags": value, "teacher": "big"})
    else:
        raw = changed(key.strip(), value)
    found = every_job(raw)
    moved = {name for name in found if name in ORIGINAL and found[name] != ORIGINAL[name]}
    assert moved - {"report"} == expected
    assert ("report" in moved) == (key != "data.workers")


def test_another_student_moves_nothing_but_what_shows_it():
    more = {**STUDY["students"], "another": STUDY["students"]["seed"]}
    found = every_job(changed("students", more))
    moved = {name for name in ORIGINAL if found[name] != ORIGINAL[name]}
    assert moved == {"report", "table all", "accuracy all", "training"}


def test_a_student_that_no_table_shows_does_not_move_their_figures():
    tables = {"some": STUDY["tables"]["some"]}
    before, after = ({**STUDY, "tables": tables} for _ in range(2))
    after["students"] = {**STUDY["students"], "another": STUDY["students"]["seed"]}
    first, second = every_job(before), every_job(after)
    assert {name for name in first if first[name] != second[name]} == {"report", "training"}


def test_the_name_of_a_student_is_no_part_of_how_it_is_trained():
    renamed = json.loads(json.dumps(STUDY).replace('"bingo-5"', '"first"'))
    before, after = ORIGINAL, every_job(renamed)
    for seed in (0, 1):
        assert after[f"student first {seed}"] == before[f"student bingo-5 {seed}"]
    # Results say whose they are.
    assert json.loads(after["knn-10 first 0"]) == {**json.loads(before["knn-10 bingo-5 0"]), "model": "first"}


def test_the_name_of_a_teacher_is_no_part_of_how_it_or_its_students_are_trained():
    renamed = json.loads(json.dumps(STUDY).replace('"given"', '"taken"').replace('"big"', '"large"'))
    after = every_job(renamed)
    assert after["teacher large"] == ORIGINAL["teacher big"]
    assert after["teacher taken"] == ORIGINAL["teacher given"]
    for name in ORIGINAL:
        if name.startswith(("student ", "targets ", "embeddings")):
            assert after[name] == ORIGINAL[name]


def test_seeds_have_settings_of_their_own():
    for job in ("student alone", "knn-10 alone", "coco-mask-rcnn alone"):
        first, second = (json.loads(ORIGINAL[f"{job} {seed}"]) for seed in (0, 1))
        assert (first.pop("seed"), second.pop("seed")) == (0, 1)
        assert first == second


def test_settings_are_canonical():
    def reversed_keys(value):
        return {key: reversed_keys(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    for name, text in every_job(reversed_keys(STUDY)).items():
        if name != "table all":  # which shows networks in the order of the study
            assert text == ORIGINAL[name]
    for text in ORIGINAL.values():
        assert text == json.dumps(json.loads(text), sort_keys=True)


def test_a_default_that_is_written_out_moves_nothing_but_the_report():
    whole = study_of(STUDY).model_dump(mode="json")
    assert every_job(whole) == ORIGINAL


def test_a_share_that_is_not_held_out_is_in_no_settings():
    # So listings and reports of studies older than the key are not made again.
    assert not [name for name, text in ORIGINAL.items() if "held_out" in text]
    held_out = every_job(changed("transfer.flowers", {"source": "folder", "train": "flowers/train", "held_out": 0.2}))
    assert json.loads(held_out["flowers train"])["data"]["held_out"] == 0.2


def test_the_side_before_the_centre_is_cut_out_follows_from_the_input_unless_it_is_said():
    for preprocessing, expected in (
        ({}, (224, 256)),
        ({"size": 32}, (32, 37)),
        ({"size": 32, "resize": 32}, (32, 32)),
        ({"resize": 300}, (224, 300)),
    ):
        found = json.loads(every_job(changed("data.preprocessing", preprocessing))["embeddings"])["preprocessing"]
        assert (found["size"], found["resize"]) == expected


def test_each_stage_reads_back_what_the_study_gave_it():
    study = study_of(STUDY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of pydantic, where a section is none of those that the job knows
        found = every_job(STUDY)
    kinds = {
        "data": jobs.DataJob, "pack": jobs.PackJob,
        "flowers": jobs.DataJob, "embeddings": jobs.EmbeddingsJob, "bags": jobs.BagsJob,
        "targets": jobs.TargetsJob, "student": jobs.StudentJob, "knn-10": jobs.EvaluationJob,
        "flowers-linear": jobs.EvaluationJob, "semi-1": jobs.EvaluationJob, "coco-mask-rcnn": jobs.DetectionJob,
        "table": jobs.TableJob, "text": jobs.TextJob, "accuracy": jobs.AccuracyFigureJob, "map": jobs.MapFigureJob,
        "training": jobs.TrainingFigureJob, "bag": jobs.BagSizeFigureJob, "report": jobs.ReportJob,
    }  # fmt: skip
    read = {}
    for name, text in found.items():
        kind = kinds.get("bag" if name == "bag size" else name.split()[0])
        if name.startswith("teacher"):
            imported = isinstance(study.teachers[name.split()[1]], ImportedTeacher)
            kind = jobs.ImportJob if imported else jobs.TeacherJob
        read[name] = kind.model_validate_json(text)
    assert read["teacher big"].teacher == study.teachers["big"]
    assert read["student seed 1"].student == study.students["seed"].model_copy(update={"teacher": None})
    assert read["student seed 1"].seed == 1
    assert read["report"].study == study
    assert read["data train"].data.train == "photos/train"
    assert read["flowers val"].data.val == "flowers/val"
    assert read["bags knn-9"].bags == study.bags["knn-9"]
    assert read["knn-10 alone 0"].preprocessing == study.data.preprocessing
    network_input = study.data.preprocessing.network_input()
    assert all(read[name].preprocessing == network_input for name in ("teacher big", "student seed 0", "targets seed"))


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
def test_a_student_of_every_kind_reaches_its_stage_whole_but_for_the_name_of_its_teacher(entry):
    study = study_of(changed("students.alone", {"backbone": {"architecture": "resnet18"}, **entry}))
    text = settings.student_settings(study, "alone", 1)
    student = study.students["alone"]
    if hasattr(student, "teacher"):
        student = student.model_copy(update={"teacher": None})
        assert "teacher" not in json.loads(text)["student"]
    assert jobs.StudentJob.model_validate_json(text).student == student


def test_a_result_is_named_as_the_study_asked_for_it():
    asked = ("knn-10", "flowers-linear", "semi-1")
    for name in asked:
        job = jobs.EvaluationJob.model_validate_json(ORIGINAL[f"{name} alone 0"])
        assert job.name == name
        assert (f"{job.target}-{job.protocol}" if job.target else job.protocol) == name
    job = jobs.DetectionJob.model_validate_json(ORIGINAL["coco-mask-rcnn alone 0"])
    assert (job.target, job.protocol, job.name) == ("coco", "mask-rcnn", "coco-mask-rcnn")


@pytest.mark.parametrize("position", range(5))
def test_every_part_of_how_teacher_views_are_drawn_is_in_the_settings_of_targets(position):
    drawn = ("paper", "auto", "projection", 0, 3)
    others = ("small", "float32", "features", 1, 4)
    one = [*drawn[:position], others[position], *drawn[position + 1 :]]
    study = study_of(STUDY)
    assert settings.targets_settings(study, *one) != settings.targets_settings(study, *drawn)


@pytest.mark.parametrize("key", ["format", "part", "architecture"])
def test_what_an_imported_teacher_is_said_to_be_is_in_its_settings(key):
    value = {"format": "swav", "part": "teacher", "architecture": "resnet18"}[key]
    text = settings.teacher_settings(study_of(changed(f"teachers.given.{key}", value)), "given")
    assert json.loads(text) == {**json.loads(ORIGINAL["teacher given"]), key: value}
    assert "checkpoint" not in text


def names(rows):
    return [(row.model, row.method, row.student, row.teacher, row.bags, row.architecture) for row in rows]


TEACHERS = [("big", "moco", "", "big", "", ""), ("given", "imported", "", "given", "", "")]
ALONE = ("alone", "moco", "alone", "", "", "resnet18")
BINGO = ("bingo-5", "bingo", "bingo-5", "big", "knn-5", "resnet18")


def test_a_table_has_all_networks_or_those_it_names_below_their_teachers():
    study = study_of(STUDY)
    rows = names(settings.table_rows(study, "all"))
    assert rows[:4] == [*TEACHERS, ALONE, BINGO]
    assert rows[5:] == [
        ("label", "bingo", "label", "given", "classes", ""),
        ("seed", "seed", "seed", "given", "", "resnet18"),
    ]
    assert names(settings.table_rows(study, "some")) == [TEACHERS[0], BINGO, ALONE]
    without = study_of(changed("tables.some.teachers", False))
    assert names(settings.table_rows(without, "some")) == [BINGO, ALONE]
    assert names(settings.table_rows(study_of(changed("tables.some.students", ["alone"])), "some")) == [ALONE]
    # Bags from which nothing is drawn have no part in a student.
    intra = study_of(changed("students.bingo-5.terms", ["intra"]))
    assert names(settings.table_rows(intra, "some"))[1] == ("bingo-5", "bingo", "bingo-5", "big", "", "")


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
    assert {row.model: row.architecture for row in settings.table_rows(study, "some")}["bingo-5"] == published


def test_a_teacher_has_results_for_its_own_seed_a_student_for_those_of_the_study():
    study = study_of(changed("teachers.big.seed", 7))
    seeds = {model: settings.model_seeds(study, model) for model in ("big", "given", "alone")}
    assert seeds == {"big": [7], "given": [0], "alone": [0, 1]}


def series(**students):
    raw = changed("bags.other", {"criterion": "knn", "teacher": "given", "size": 3})
    raw["bags"]["kmeans"] = {"criterion": "kmeans", "teacher": "big", "clusters": 9}
    raw["bags"]["again"] = raw["bags"]["knn-5"]
    raw["students"] = {**STUDY["students"], **students}
    return [(found.label, found.sizes) for found in settings.bag_size_series(study_of(raw))]


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
    assert settings.bag_size_series(study_of(raw)) == []
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
    job = jobs.TrainingFigureJob.model_validate_json(
        settings.training_figure_settings(study_of(changed("students", students)))
    )
    assert job.panels == {
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
    job = jobs.AccuracyFigureJob.model_validate_json(settings.accuracy_figure_settings(study_of(raw), "all"))
    assert job.architectures["alone"] == "resnet10, width 0.0625"
    assert job.architectures["seed"] == "resnet18"
