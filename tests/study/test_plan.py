import os
import re
from pathlib import Path

import pytest

from bingo.errors import BingoError
from bingo.study.jobs import BagsJob, DetectionJob, EvaluationJob, StudentJob
from bingo.study.plan import Plan
from bingo.study.report_jobs import MapFigureJob, TableJob
from bingo.study.schema import parse_study

STUDY = {
    "study": "s",
    "data": {"source": "demo", "max_train": 100},
    "teachers": {"big": {"method": "moco", "backbone": {"architecture": "resnet18"}, "training": {"batch_size": 100}}},
    "bags": {"knn": {"criterion": "knn", "teacher": "big", "size": 99}},
    "students": {
        "small": {
            "method": "bingo",
            "bags": "knn",
            "backbone": {"architecture": "resnet10"},
            "training": {"batch_size": 100},
        }
    },
}


def plan(images):
    return Plan(parse_study({**STUDY, "data": {"source": "demo", "max_train": images}}, "s.yaml"))


def sources(job):
    """Return what a job reads beside the images and the network that it is about."""
    return {name: files for name, files in job.inputs.items() if name not in ("listing", "weights")}


@pytest.mark.parametrize("section", ["bags.knn", "teachers.big", "students.small"])
def test_more_images_than_there_are_is_refused_before_anything_runs(section):
    assert plan(100).facts.most_images == 100
    keys = ["bags.knn.size", "teachers.big.training.batch_size", "students.small.training.batch_size"]
    raw = {**STUDY, "data": {"source": "demo", "max_train": 60}}
    for key in keys:
        if not key.startswith(section):
            name, entry = key.split(".")[:2]
            change = {"size": 5} if name == "bags" else {"training": {"batch_size": 60}}
            raw = {**raw, name: {entry: {**raw[name][entry], **change}}}
    with pytest.raises(BingoError, match=rf"{section}[a-z._]*size: \d+ needs 100 training images, but there are 60"):
        Plan(parse_study(raw, "s.yaml"))


def test_an_index_with_more_lists_than_images_is_refused_before_anything_runs():
    index = {**STUDY["bags"]["knn"], "search": {"ivf": {"lists": 101, "probes": 1}}}
    message = r"^bags\.knn\.search\.ivf\.lists: 101 needs 101 training images, but there are 100; lower it$"
    with pytest.raises(BingoError, match=message):
        Plan(parse_study({**STUDY, "bags": {"knn": index}}, "s.yaml"))


BACKBONE = {"architecture": "resnet10"}
TRAINING = {"batch_size": 50}


def rich(**changes):
    """A plan with a student for each way to learn from a teacher."""
    views = {"training": {**TRAINING, "views": "small", "precision": "float32"}, "backbone": BACKBONE}
    study = {
        **STUDY,
        "teachers": {**STUDY["teachers"], "given": {"checkpoint": "results/s/students/alone/seed-0/x.safetensors"}},
        "bags": {
            "knn": {"criterion": "knn", "teacher": "big"},
            "kmeans": {"criterion": "kmeans", "teacher": "big", "clusters": 100},
            "label": {"criterion": "label"},
            "random": {"criterion": "random"},
        },
        "students": {
            "alone": {"method": "moco", "backbone": BACKBONE, "training": TRAINING},
            "online": {"method": "bingo", "bags": "knn", **views},
            "stored": {"method": "bingo", "bags": "kmeans", "teacher_views": 2, **views},
            "auto": {"method": "seed", "teacher": "given", "teacher_views": 2, "backbone": BACKBONE},
            "label": {"method": "bingo", "bags": "label", "teacher": "given", **views},
            "random": {"method": "bingo", "bags": "random", "teacher": "big", "teacher_views": 1, **views},
        },
        **changes,
    }
    if "auto" in study["students"]:
        study["students"]["auto"]["training"] = TRAINING
    return Plan(parse_study(study, "s.yaml"))


def test_a_student_waits_for_its_teacher_or_for_the_outputs_in_its_place_and_for_bags():
    targets = "results/s/targets"
    assert {name: sources(StudentJob.of(rich(), name, 0)) for name in rich().study.students} == {
        "alone": {},
        "online": {"teacher": "results/s/teachers/big.safetensors", "bags": "results/s/bags/knn.h5"},
        "stored": {"targets": [f"{targets}/big/small-float32-projection-0-2.h5"], "bags": "results/s/bags/kmeans.h5"},
        "auto": {"targets": [f"{targets}/given/paper-auto-projection-0-2.h5"]},
        "label": {"teacher": "results/s/teachers/given.safetensors", "bags": "results/s/bags/label.h5"},
        "random": {"targets": [f"{targets}/big/small-float32-projection-0-1.h5"], "bags": "results/s/bags/random.h5"},
    }


STORED = {"teacher_views": 2, "backbone": BACKBONE}
MORE = {
    "disco": {"method": "disco", "teacher": "big", **STORED},
    "compress": {"method": "compress", "teacher": "big", **STORED},
    "intra": {"method": "bingo", "bags": "knn", "terms": ["intra"], **STORED},
    "inter": {"method": "bingo", "bags": "knn", "terms": ["inter"], **STORED},
    "cutmix": {"method": "bingo", "bags": "knn", "objective": "official", "terms": ["cutmix"], **STORED},
    "alone": {"method": "moco", "backbone": BACKBONE},
}


def more(*names):
    students = {name: {**MORE[name], "training": TRAINING} for name in names}
    return rich(students=students)


def test_each_number_and_layer_of_stored_outputs_has_a_file():
    plan = more(*MORE)
    folder, bags = "results/s/targets/big", "results/s/bags/knn.h5"
    assert {name: sources(StudentJob.of(plan, name, 0)) for name in MORE} == {
        "disco": {"targets": [f"{folder}/paper-auto-projection-{number}-2.h5" for number in (0, 1)]},
        "compress": {"targets": [f"{folder}/crop-flip-auto-features-0-2.h5"]},
        # Who draws no positives waits for no bags, though these name its teacher.
        "intra": {"targets": [f"{folder}/paper-auto-projection-0-2.h5"]},
        "inter": {"targets": [f"{folder}/paper-auto-projection-0-2.h5"], "bags": bags},
        "cutmix": {"targets": [f"{folder}/paper-auto-projection-0-2.h5"], "bags": bags},
        "alone": {},
    }


def test_another_stored_student_changes_neither_inputs_nor_settings_of_this_one():
    whole = more(*MORE)
    for name in MORE:
        alone, beside = (StudentJob.of(plan, name, 0) for plan in (more(name), whole))
        assert alone.inputs == beside.inputs
        assert alone.identity == beside.identity


def test_bags_wait_for_a_teacher_and_its_embeddings_where_they_are_made_from_any():
    inputs = {"teacher": "results/s/teachers/big.safetensors", "embeddings": "results/s/embeddings/big.h5"}
    found = {name: sources(BagsJob.of(rich(), name)) for name in rich().study.bags}
    assert found == {"knn": inputs, "kmeans": inputs, "label": {}, "random": {}}


def test_imported_teachers_are_not_trained_and_have_no_log():
    plan = rich()
    assert plan.trained_teachers() == ["big"]
    assert plan.checkpoints() == {"given": "results/s/students/alone/seed-0/x.safetensors"}
    logs = plan.training_logs()
    assert "given" not in logs
    assert logs["big"] == "results/s/teachers/big.csv"
    assert len(logs) == 1 + len(plan.study.students)
    assert "results/s/teachers/given.safetensors" in plan.all_weights()


def test_a_study_of_imported_teachers_has_no_training_log():
    study = {**STUDY, "teachers": {"given": {"checkpoint": "results/s/x.pt"}}, "bags": {}, "students": {}}
    assert Plan(parse_study(study, "s.yaml")).training_logs() == {}


@pytest.mark.parametrize("name", ["{epoch}.pt", "a{b.pt", "a}.pt", "{x}/weights.pt"])
@pytest.mark.parametrize("where", ["", "results/s/"])
def test_a_checkpoint_with_braces_is_refused_before_snakemake_reads_them(name, where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = where + name
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    study = {"study": "s", "data": {"source": "demo"}, "teachers": {"given": {"checkpoint": path}}}
    with pytest.raises(BingoError) as caught:
        Plan(parse_study(study, "s.yaml"))
    message = f"teachers.given.checkpoint: {path} has braces, which Snakemake cannot take; rename it"
    assert str(caught.value) == message


def test_a_checkpoint_that_is_not_there_is_refused_unless_the_study_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def given(path):
        study = {"study": "s", "data": {"source": "demo"}, "teachers": {"given": {"checkpoint": str(path)}}}
        return Plan(parse_study(study, "s.yaml"))

    for path in ("nowhere.pt", tmp_path, "results/other/teachers/x.safetensors"):
        with pytest.raises(BingoError) as caught:
            given(path)
        assert str(caught.value) == f"teachers.given.checkpoint: there is no file {path}; correct the path"
    (tmp_path / "weights.pt").write_text("")
    assert given("weights.pt").checkpoints() == {"given": "weights.pt"}
    assert given("results/s/students/small/seed-0/backbone.safetensors").trained_teachers() == []


def test_label_bags_of_data_without_labels_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").write_text("")
    study = {
        "study": "s",
        "data": {"source": "folder", "train": str(tmp_path / "train")},
        "teachers": {"big": STUDY["teachers"]["big"]},
        "bags": {"classes": {"criterion": "label"}},
    }
    with pytest.raises(BingoError) as caught:
        Plan(parse_study(study, "s.yaml"))
    assert str(caught.value) == "bags.classes: criterion label needs labels, which the data have not; take another"
    (tmp_path / "train" / "class").mkdir()
    assert Plan(parse_study(study, "s.yaml")).facts.labels
    study["data"]["labels"] = "none"
    with pytest.raises(BingoError, match="criterion label needs labels"):
        Plan(parse_study(study, "s.yaml"))


@pytest.mark.parametrize(
    ("bag", "fits", "too_many", "key"),
    [
        ({"criterion": "kmeans", "teacher": "big"}, {"clusters": 100}, {"clusters": 101}, "clusters: 101 needs 101"),
        ({"criterion": "random"}, {"size": 99}, {"size": 100}, "size: 100 needs 101"),
        ({"criterion": "knn", "teacher": "big"}, {"size": 99}, {"size": 100}, "size: 100 needs 101"),
    ],
)
def test_bags_of_more_than_there_is_are_refused(bag, fits, too_many, key):
    study = {**STUDY, "students": {}}
    Plan(parse_study({**study, "bags": {"b": {**bag, **fits}}}, "s.yaml"))
    with pytest.raises(BingoError) as caught:
        Plan(parse_study({**study, "bags": {"b": {**bag, **too_many}}}, "s.yaml"))
    assert str(caught.value) == f"bags.b.{key} training images, but there are 100; lower it"


def test_errors_are_read_from_the_logs_of_this_run_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = {
        "old": "1999-12-31 23:59:59 error: long ago",
        "new": "2026-01-01 00:00:00 error: x.h5: damaged",
        "ok": "fine",
    }
    for age, (name, line) in enumerate(lines.items()):
        path = tmp_path / "logs" / "s" / "bags" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"2026-01-01 00:00:00 knn: 7 of 9 images\n{line}\n")
        if age == 0:
            os.utime(path, (1000, 1000))
    assert plan(100).faults(since=2000) == ["logs/s/bags/new.log: x.h5: damaged"]
    assert len(plan(100).faults(since=0)) == 2


# What is measured, on what, and what is shown of it.
SMALL = {"method": "moco", "backbone": BACKBONE, "training": TRAINING}
DISTILLED = {"method": "bingo", "bags": "knn", "backbone": BACKBONE, "training": TRAINING}
MEASURED = {
    "study": "s",
    "seeds": [3, 4],
    "data": {"source": "folder", "train": "photos/train", "val": "photos/val"},
    "teachers": {
        "big": {"method": "moco", "backbone": BACKBONE, "seed": 7},
        "given": {"checkpoint": "results/s/students/alone/seed-3/backbone.safetensors"},
    },
    "bags": {"knn": {"criterion": "knn", "teacher": "big"}},
    "students": {"alone": SMALL, "distilled": DISTILLED},
    "evaluations": ["knn-10"],
    "tables": {"all": {"title": "T"}},
}
COCO = {
    "source": "coco",
    "train": "coco/t",
    "train_annotations": "coco/t.json",
    "val": "coco/v",
    "val_annotations": "coco/v.json",
}
FLOWERS = {"source": "folder", "train": "flowers/train", "val": "flowers/val"}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A working folder with images of two classes in `photos` and `flowers`, a flat folder, and COCO's files."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "flowers"):
        for split in ("train", "val"):
            for name in ("a", "b"):
                (tmp_path / folder / split / name).mkdir(parents=True)
    for path in ("flat/x.png", "coco/t/x.png", "coco/v/x.png", "coco/t.json", "coco/v.json", "paper.csv", "list.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


def measured(**changes):
    return Plan(parse_study({**MEASURED, **changes}, "s.yaml"))


def refusal(**changes):
    with pytest.raises(BingoError) as caught:
        measured(**changes)
    return str(caught.value)


def results(*names):
    return {f"results/s/evaluation/{name}.json" for name in names}


def evaluation_inputs(plan, evaluation):
    """Return what an evaluation of any network reads beside it."""
    inputs = EvaluationJob.of(plan, "given", 0, evaluation).inputs
    assert inputs.pop("weights") == "results/s/teachers/given.safetensors"
    return inputs


def test_every_network_is_measured_by_every_protocol_of_the_study(photos):
    plan = measured(evaluations=["knn-10", "cifar10-linear"])
    runs = ("big/seed-7", "given/seed-0", "alone/seed-3", "alone/seed-4", "distilled/seed-3", "distilled/seed-4")
    expected = results(*(f"{run}/{name}" for run in runs for name in ("knn-10", "cifar10-linear")))
    assert set(plan.all_results()) == expected
    assert set(plan.table_results("all")) == expected
    assert len(plan.all_results()) == len(expected)
    assert set(plan.network_results("alone", 4)) == results("alone/seed-4/knn-10", "alone/seed-4/cifar10-linear")


def test_what_only_a_table_names_is_measured_of_its_networks_alone(photos):
    tables = {
        "one": {"title": "T", "students": ["alone"], "evaluations": ["knn-20", "coco-mask-rcnn"]},
        "two": {"title": "T", "students": ["distilled"], "evaluations": ["semi-1", "knn-10"]},
        "three": {"title": "T", "students": ["distilled"], "evaluations": ["semi-10"], "teachers": False},
    }
    plan = measured(tables=tables, transfer={"coco": COCO})
    alone, distilled = [f"alone/seed-{seed}" for seed in (3, 4)], [f"distilled/seed-{seed}" for seed in (3, 4)]
    one = results(*(f"{run}/{name}" for run in alone for name in ("knn-20", "coco-mask-rcnn")))
    two = results(*(f"{run}/{name}" for run in ("big/seed-7", *distilled) for name in ("semi-1", "knn-10")))
    three = results(*(f"{run}/semi-10" for run in distilled))
    assert {name: set(plan.table_results(name)) for name in tables} == {"one": one, "two": two, "three": three}
    everywhere = results(*(f"{run}/knn-10" for run in ("big/seed-7", "given/seed-0", *alone, *distilled)))
    assert set(plan.all_results()) == one | two | three | everywhere
    assert len(plan.all_results()) == len(set(plan.all_results()))
    assert plan.detections() == ["coco-mask-rcnn"]
    assert sorted(plan.classifications()) == ["knn-10", "knn-20", "semi-1", "semi-10"]
    assert DetectionJob.of(plan, "alone", 3, "coco-mask-rcnn").val_annotations == Path("coco/v.json")


def test_an_evaluation_waits_for_the_listings_of_its_images(photos):
    plan = measured(evaluations=["knn-10", "flowers-knn-10", "cifar10-linear"], transfer={"flowers": FLOWERS})
    assert {name: evaluation_inputs(plan, name) for name in plan.asked} == {
        "knn-10": {"listing": "results/s/data/train-listing.h5", "val_listing": "results/s/data/val-listing.h5"},
        **{
            f"{target}-{protocol}": {
                "listing": f"results/s/data/{target}/train-listing.h5",
                "val_listing": f"results/s/data/{target}/val-listing.h5",
            }
            for target, protocol in (("flowers", "knn-10"), ("cifar10", "linear"))
        },
    }
    assert plan.targets["flowers"].folders == {
        split: [f"flowers/{split}", f"flowers/{split}/a", f"flowers/{split}/b"] for split in ("train", "val")
    }
    assert plan.targets["cifar10"].folders == {"train": [], "val": []}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": None}, "transfer.flowers: has no validation images to evaluate with; add them, or leave {} out"),
        ({"labels": "none"}, "transfer.flowers: has no labels to evaluate with; add them, or leave {} out"),
        (
            {"train": "flat", "val": "flat"},
            "transfer.flowers: has no labels to evaluate with; add them, or leave {} out",
        ),
        ({"train": "nowhere"}, "transfer.flowers.train: there is no folder nowhere; correct the path"),
        ({"val": "nowhere"}, "transfer.flowers.val: there is no folder nowhere; correct the path"),
        (
            {"train": "flat", "labels": "folders"},
            "transfer.flowers.train: flat has no class folders; set transfer.flowers.labels: none",
        ),
    ],
)
@pytest.mark.parametrize("where", ["evaluations", "tables"])
def test_another_set_without_what_it_takes_is_refused_by_its_key(photos, changes, message, where):
    asked = ["flowers-knn-10"]
    use = {"evaluations": asked} if where == "evaluations" else {"tables": {"t": {"title": "T", "evaluations": asked}}}
    assert refusal(transfer={"flowers": {**FLOWERS, **changes}}, **use) == message.format("flowers-knn-10")
    # Where nothing is measured on it nobody looks at it.
    assert measured(transfer={"flowers": {**FLOWERS, **changes}}).targets == {}


@pytest.mark.parametrize("key", ["train", "train_annotations", "val", "val_annotations"])
def test_missing_files_of_coco_are_refused_by_their_key(photos, key):
    transfer = {"coco": {**COCO, key: "coco/nowhere"}}
    message = f"transfer.coco.{key}: there is no coco/nowhere; correct the path"
    assert refusal(transfer=transfer, evaluations=["coco-faster-rcnn"]) == message
    assert measured(transfer=transfer).detections() == []


def test_missing_files_of_labels_and_published_numbers_are_refused_by_their_keys(photos):
    data = {**MEASURED["data"], "label_lists": {"semi-1": "list.txt", "semi-10": "nowhere.txt"}}
    message = "data.label_lists.semi-10: there is no file nowhere.txt; correct the path"
    assert refusal(data=data) == message
    tables = {"all": {"title": "T", "published": "nowhere.csv"}}
    assert refusal(tables=tables) == "tables.all.published: there is no file nowhere.csv; correct the path"
    (photos / "odd.csv").write_text("method,student,number,source\n")
    message = "tables.all.published: odd.csv lacks the columns teacher, protocol, metric, published; "
    assert refusal(tables={"all": {"title": "T", "published": "odd.csv"}}).startswith(message)
    (photos / "paper.csv").write_text("method,student,teacher,protocol,metric,published,source\n")
    plan = measured(tables={"all": {"title": "T", "published": "paper.csv"}, "none": {"title": "T"}})
    assert TableJob.of(plan, "all").inputs["published"] == "paper.csv"
    assert "published" not in TableJob.of(plan, "none").inputs


@pytest.mark.parametrize("kind", ["published", "label list", "annotations"])
def test_files_with_braces_are_refused_before_snakemake_reads_them(photos, kind):
    name = "a{b}.txt"
    (photos / name).touch()
    changes, key = {
        "published": ({"tables": {"all": {"title": "T", "published": name}}}, "tables.all.published"),
        "label list": (
            {"data": {**MEASURED["data"], "label_lists": {"semi-1": name}}, "evaluations": ["semi-1"]},
            "data.label_lists.semi-1",
        ),
        "annotations": (
            {"transfer": {"coco": {**COCO, "val_annotations": name}}, "evaluations": ["coco-mask-rcnn"]},
            "transfer.coco.val_annotations",
        ),
    }[kind]
    message = refusal(**changes)
    assert message.startswith(f"{key}: {name} has braces")


def test_a_packed_study_reads_its_own_images_from_packs_and_others_from_their_folders(photos):
    data = {**MEASURED["data"], "pack": {}}
    plan = measured(data=data, evaluations=["knn-10", "flowers-knn-10"], transfer={"flowers": FLOWERS})
    packs = {"listing": "results/s/data/train.h5", "val_listing": "results/s/data/val.h5"}
    assert evaluation_inputs(plan, "knn-10") == packs
    assert evaluation_inputs(plan, "flowers-knn-10")["listing"] == "results/s/data/flowers/train-listing.h5"
    assert plan.listing("train") == packs["listing"]
    assert MapFigureJob.of(plan, "alone").inputs["listing"] == packs["val_listing"]
    assert measured().listing("train") == "results/s/data/train-listing.h5"


def test_a_list_of_labelled_images_is_an_input_of_its_protocol_alone(photos):
    data = {**MEASURED["data"], "label_lists": {"semi-1": "list.txt"}}
    plan = measured(data=data, evaluations=["semi-1", "semi-10", "flowers-semi-1"], transfer={"flowers": FLOWERS})
    inputs = {name: evaluation_inputs(plan, name) for name in plan.asked}
    assert inputs["semi-1"]["label_list"] == "list.txt"
    assert "label_list" not in inputs["semi-10"]
    assert "label_list" not in inputs["flowers-semi-1"]  # it names images of the study's own


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A folder with a thousand class folders, named by WordNet numbers as ImageNet's are."""
    folder = tmp_path_factory.mktemp("imagenet")
    for i in range(1000):
        (folder / f"n{i * 7919:08}").mkdir()
    return folder


@pytest.mark.parametrize("where", ["evaluations", "tables"])
def test_on_imagenet_a_share_of_the_labels_is_that_of_its_published_list(photos, classes, where):
    def use(*protocols):
        names = list(protocols)
        return (
            {"evaluations": names}
            if where == "evaluations"
            else {"tables": {"t": {"title": "T", "evaluations": names}}}
        )

    data = {"source": "folder", "train": str(classes), "val": str(classes)}
    for name in ("semi-1", "semi-10"):
        assert refusal(data=data, **use("knn-10", name)) == (
            f"data.label_lists: on ImageNet {name} uses SimCLR's list of images; name that file "
            "(github.com/google-research/simclr, imagenet_subsets)"
        )
    one = {**data, "label_lists": {"semi-1": "list.txt"}}
    assert evaluation_inputs(measured(data=one, **use("semi-1")), "semi-1")["label_list"] == "list.txt"
    assert "on ImageNet semi-10 uses" in refusal(data=one, **use("semi-1", "semi-10"))
    # What needs no such list, and other images, are measured without.
    assert measured(data=data, **use("knn-10", "linear-moco", "cifar10-finetune", "cifar10-semi-1")).left_out == ""


@pytest.mark.parametrize("change", ["one less", "one more", "another name"])
def test_what_only_looks_like_imagenet_needs_no_list(photos, tmp_path, change):
    folder = tmp_path / "images"
    for i in range({"one less": 999, "one more": 1001}.get(change, 1000)):
        (folder / (f"n{i:08}" if change != "another name" or i else "n0000000")).mkdir(parents=True)
    data = {"source": "folder", "train": str(folder), "val": str(folder)}
    assert measured(data=data, evaluations=["semi-1"]).left_out == ""


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        ({"source": "folder", "train": "photos/train"}, "validation images"),
        ({"source": "folder", "train": "flat", "val": "flat"}, "labels"),
        ({"source": "folder", "train": "photos/train", "val": "photos/val", "labels": "none"}, "labels"),
        ({"source": "folder", "train": "flat"}, "labels"),
    ],
)
def test_without_labels_or_validation_images_what_is_measured_elsewhere_remains(photos, data, missing):
    changes = {
        "data": data,
        "transfer": {"flowers": FLOWERS, "coco": COCO},
        "evaluations": ["knn-10", "flowers-knn-10", "coco-mask-rcnn", "linear-moco"],
        "tables": {"all": {"title": "T"}, "own": {"title": "T", "evaluations": ["knn-10"]}},
    }
    plan = measured(**changes)
    assert plan.tables == ["all"]
    assert plan.table_evaluations("all") == ["flowers-knn-10", "coco-mask-rcnn"]
    assert {Path(path).stem for path in plan.all_results()} == {"flowers-knn-10", "coco-mask-rcnn"}
    assert "accuracy-all" in plan.figures()
    assert "accuracy-own" not in plan.figures()
    assert plan.left_out.endswith(f", because the data have no {missing}.")
    assert "knn-10, linear-moco" in plan.left_out
    assert "flowers" not in plan.left_out

    nothing = measured(**{**changes, "evaluations": ["knn-10"]})
    assert (nothing.tables, nothing.all_results()) == ([], [])
    assert nothing.left_out == f"evaluations and tables, because the data have no {missing}."
    assert measured(**{**changes, "evaluations": [], "tables": {}}).left_out == ""


def test_a_table_that_is_left_out_is_named(photos):
    tables = {"all": {"title": "T"}, "own": {"title": "T", "evaluations": ["knn-10"]}}
    plan = measured(data={"source": "folder", "train": "flat"}, evaluations=["cifar10-linear"], tables=tables)
    assert plan.tables == ["all"]
    assert "own" in plan.left_out.split(", because ")[0].replace(",", " ").split()


def test_figures_are_those_that_the_study_has_something_for(photos):
    maps = ["map-big", "map-given", "map-alone", "map-distilled"]
    assert measured().figures() == ["accuracy-all", "training", "purity-big", "similarity-knn", *maps]
    bags = {
        **MEASURED["bags"],
        "kmeans": {"criterion": "kmeans", "teacher": "given", "clusters": 3},
        "label": {"criterion": "label"},
    }
    more = measured(bags=bags, tables={"x": {"title": "T"}, "y": {"title": "T"}})
    assert more.figures()[:6] == [
        "accuracy-x",
        "accuracy-y",
        "training",
        "purity-big",
        "purity-given",
        "similarity-knn",
    ]
    blind = measured(data={"source": "folder", "train": "flat"})
    assert blind.figures() == ["training", "similarity-knn", *maps]
    imported = measured(
        teachers={"given": MEASURED["teachers"]["given"]}, bags={}, students={}, evaluations=[], tables={}
    )
    assert imported.figures() == ["map-given"]


def test_students_with_bags_of_several_sizes_have_a_figure_of_them(photos):
    bags = {"knn": {"criterion": "knn", "teacher": "big"}, "more": {"criterion": "knn", "teacher": "big", "size": 9}}
    changes = {"bags": bags, "students": {"alone": SMALL, "five": DISTILLED, "nine": {**DISTILLED, "bags": "more"}}}
    plan = measured(**changes, evaluations=["knn-10", "cifar10-linear"])
    assert "bag-size" in plan.figures()
    assert plan.bag_size_evaluations() == ["knn-10", "cifar10-linear"]
    runs = [f"{name}/seed-{seed}/{protocol}" for name in ("five", "nine") for seed in (3, 4) for protocol in plan.asked]
    assert set(plan.bag_size_results()) == results(*runs)
    blind = measured(**changes, data={"source": "folder", "train": "flat"}, evaluations=["knn-10", "cifar10-linear"])
    assert blind.bag_size_evaluations() == ["cifar10-linear"]
    for few in (
        measured(),
        measured(**changes, evaluations=[]),
        measured(**changes, data={"source": "folder", "train": "flat"}),
    ):
        assert "bag-size" not in few.figures()
        assert few.bag_size_results() == []


def test_maps_show_validation_images_where_there_are_any_and_the_first_of_a_students_networks(photos):
    plan, blind = measured(), measured(data={"source": "folder", "train": "photos/train"})
    big, alone, unseen = MapFigureJob.of(plan, "big"), MapFigureJob.of(plan, "alone"), MapFigureJob.of(blind, "alone")
    assert (alone.split, alone.listing) == ("val", Path("results/s/data/val-listing.h5"))
    assert (unseen.split, unseen.listing) == ("train", Path("results/s/data/train-listing.h5"))
    assert big.weights == Path("results/s/teachers/big.safetensors")
    assert alone.weights == Path("results/s/students/alone/seed-3/backbone.safetensors")


def test_sheets_of_the_best_and_worst_bags_need_something_to_rank_them_by(photos):
    bags = {"knn": {"criterion": "knn", "teacher": "big"}, "random": {"criterion": "random"}}
    students = {"alone": SMALL}

    def pages(name, *pages):
        return {f"{name}/{page}": f"results/s/figures/{page}-{name}.png" for page in pages}

    first = {f"{name}/random": f"results/s/bags/{name}.png" for name in bags}
    labelled, blind = (
        measured(bags=bags, students=students, data=data)
        for data in (MEASURED["data"], {"source": "folder", "train": "flat"})
    )
    assert labelled.sheets() == {
        **first,
        **pages("knn", "more", "best", "worst"),
        **pages("random", "more", "best", "worst"),
    }
    assert blind.sheets() == {**first, **pages("knn", "more", "best", "worst"), **pages("random", "more")}
    assert measured(bags={}, students=students).sheets() == {}


def test_costs_are_noted_of_every_job_that_computes(photos):
    bags = {
        **MEASURED["bags"],
        "kmeans": {"criterion": "kmeans", "teacher": "given", "clusters": 3},
        "random": {"criterion": "random"},
    }
    stored = {"method": "seed", "teacher": "given", "teacher_views": 2, "backbone": BACKBONE, "training": TRAINING}
    plan = measured(
        bags=bags,
        students={
            "alone": SMALL,
            "one": stored,
            "two": {**stored, "temperature": 0.5},
            "three": {**stored, "method": "disco"},
        },
        transfer={"coco": COCO},
        evaluations=["knn-10"],
        tables={
            "all": {"title": "T"},
            "boxes": {"title": "T", "students": ["alone"], "evaluations": ["coco-mask-rcnn"]},
        },
    )

    def noted(stage, *names):
        return [f"results/s/benchmarks/{stage}/{name}.tsv" for name in names]

    runs = [f"{name}/seed-{seed}" for name in ("alone", "one", "two", "three") for seed in (3, 4)]
    found = plan.benchmarks()
    assert found == {
        "teacher": noted("teacher", "big"),  # the other is only read
        "embeddings": noted("embeddings", "big", "given"),
        "bags": noted("bags", "knn", "kmeans", "random"),
        "targets": noted("targets", "given/paper-auto-projection-0-2", "given/paper-auto-projection-1-2"),
        "student": noted("student", *runs),
        "evaluation": noted("evaluation", *(f"{run}/knn-10" for run in ("big/seed-7", "given/seed-0", *runs))),
        "detection": noted("detection", "alone/seed-3/coco-mask-rcnn", "alone/seed-4/coco-mask-rcnn"),
    }
    # In the order of the work, for the report.
    assert list(found) == ["teacher", "embeddings", "bags", "targets", "student", "evaluation", "detection"]
    assert set(measured(bags={}, students={"alone": SMALL}, evaluations=[], tables={}).benchmarks()) == {
        "teacher",
        "student",
    }


def test_every_file_that_the_plan_speaks_of_is_what_a_rule_makes(photos):
    bags = {
        **MEASURED["bags"],
        "more": {"criterion": "knn", "teacher": "big", "size": 9},
        "random": {"criterion": "random"},
    }
    stored = {"method": "seed", "teacher": "given", "teacher_views": 2, "backbone": BACKBONE, "training": TRAINING}
    plan = measured(
        bags=bags,
        students={"alone": SMALL, "distilled": DISTILLED, "nine": {**DISTILLED, "bags": "more"}, "stored": stored},
        transfer={"coco": COCO, "flowers": FLOWERS},
        evaluations=["knn-10", "flowers-linear", "coco-mask-rcnn"],
    )
    rules = "".join(path.read_text() for path in (Path(__file__).parents[2] / "workflow/rules").glob("*.smk"))
    patterns = [
        re.compile(re.sub(r"\\{(\w+)\\}", "[a-z0-9_-]+", re.escape(pattern)))
        for pattern in re.findall(r'"(results/\{study\}/[^"]+)"', rules)
    ]
    files = {*plan.all_results(), *plan.all_weights(), *plan.sheets().values(), *plan.training_logs().values()}
    files |= {path for paths in plan.benchmarks().values() for path in paths}
    files |= {plan.path(f"figures/{name}.{suffix}") for name in plan.figures() for suffix in ("svg", "png")}
    files |= {plan.path(f"tables/{name}.{suffix}") for name in plan.tables for suffix in ("csv", "md", "tex")}
    files |= {path for name in plan.classifications() for path in evaluation_inputs(plan, name).values()}
    for bag in bags:
        files |= {plan.path(f"bags/{bag}.h5"), *BagsJob.of(plan, bag).inputs.values()}
    for student in plan.study.students:
        for paths in StudentJob.of(plan, student, 3).inputs.values():
            files |= {paths} if isinstance(paths, str) else set(paths)
    assert {path for path in files if not any(pattern.fullmatch(path) for pattern in patterns)} == set()
    assert len(files) > 80
