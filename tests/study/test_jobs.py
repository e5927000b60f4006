"""The settings of each job: all that its result depends on, and nothing else, so that it reruns only then."""

import json

import pytest

from bingo.study.jobs import EvaluationJob, TargetsJob

from .every_job import STUDY, changed, every_job, make_data, plan_of


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
    "teachers.given.format": ("swav", {"teacher given"}),
    "teachers.given.architecture": ("resnet18", {"teacher given"}),
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


def renamed(**names):
    """Return every job of the study with other names for its entries."""
    text = json.dumps(STUDY)
    for name, other in names.items():
        text = text.replace(f'"{name.replace("_", "-")}"', f'"{other}"')
    return every_job(json.loads(text))


def test_the_names_of_teachers_bags_and_students_are_no_part_of_how_they_are_made(original):
    after = renamed(big="large", given="taken", knn_5="near", classes="perfect", bingo_5="first")
    assert after["student first 0"].inputs["bags"] == "results/s/bags/near.h5"
    names = {"large": "big", "taken": "given", "near": "knn-5", "perfect": "classes", "first": "bingo-5"}
    kinds = {"teacher", "embeddings", "bags", "student", "targets"}
    for name in [name for name in after if name.split()[0] in kinds]:
        before = " ".join(names.get(word, word) for word in name.split())
        expected = original[before]
        if name.startswith("bags "):  # whose settings name the teacher
            expected = expected.replace('"teacher": "big"', '"teacher": "large"')
        assert after[name].identity == expected
    # Results say whose they are.
    result = json.loads(original["knn-10 bingo-5 0"])
    assert after["knn-10 first 0"].settings == {**result, "model": "first"}


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
    assert identities(plan_of(STUDY).study.model_dump(mode="json")) == original


def test_settings_name_no_files_but_those_of_the_studys_images_and_of_the_report(original):
    for name, text in original.items():
        if not name.startswith(("data ", "flowers t", "flowers v", "report")):
            assert "/" not in text
        assert "held_out" not in text  # studies older than the key are not rerun


def test_the_side_before_the_centre_is_cut_out_follows_from_the_input_unless_it_is_said():
    for preprocessing, expected in (
        ({}, (224, 256)),
        ({"size": 32}, (32, 37)),
        ({"size": 32, "resize": 32}, (32, 32)),
        ({"resize": 300}, (224, 300)),
    ):
        found = every_job(changed("data.preprocessing", preprocessing))["embeddings big"].preprocessing
        assert (found.size, found.resize) == expected


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
