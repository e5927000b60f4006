"""The files of a study: what each job waits for, what the data allow, and what is refused before any job."""

import os
from pathlib import Path

import pytest

from bingo.errors import BingoError
from bingo.study.jobs import BagsJob, DetectionJob, EvaluationJob, StudentJob
from bingo.study.plan import Plan
from bingo.study.report_jobs import MapFigureJob, TableJob
from bingo.study.schema import parse_study

BACKBONE = {"architecture": "resnet10"}
TRAINING = {"batch_size": 50}
SMALL = {"method": "moco", "backbone": BACKBONE, "training": TRAINING}
DISTILLED = {**SMALL, "method": "bingo", "bags": "knn"}
STORED = {**SMALL, "method": "seed", "teacher": "given", "teacher_views": 2}
KNN = {"criterion": "knn", "teacher": "big"}
KMEANS = {"criterion": "kmeans", "teacher": "given", "clusters": 3}
STUDY = {
    "study": "s",
    "seeds": [3, 4],
    "data": {"source": "folder", "train": "photos/train", "val": "photos/val"},
    "teachers": {
        "big": {"method": "moco", "backbone": BACKBONE, "seed": 7},
        "given": {"checkpoint": "results/s/students/alone/seed-3/backbone.safetensors"},
    },
    "bags": {"knn": KNN},
    "students": {"alone": SMALL, "distilled": DISTILLED},
    "evaluations": ["knn-10"],
    "tables": {"all": {"title": "T"}},
}
FLOWERS = {"source": "folder", "train": "flowers/train", "val": "flowers/val"}
COCO = {"source": "coco", "train": "coco/t", "train_annotations": "coco/t.json"}
COCO |= {"val": "coco/v", "val_annotations": "coco/v.json"}
FLAT = {"source": "folder", "train": "flat"}


@pytest.fixture(autouse=True)
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


def plan(**changes):
    return Plan(parse_study({**STUDY, **changes}, "s.yaml"))


def refusal(**changes):
    with pytest.raises(BingoError) as caught:
        plan(**changes)
    return str(caught.value)


def demo(images, **changes):
    """A study of so many images, with networks and bags that need no more than ten."""
    small = {**SMALL, "training": {"batch_size": 10}}
    fits = {"teachers": {"big": small}, "bags": {}, "students": {}, "evaluations": [], "tables": {}}
    return {**fits, "data": {"source": "demo", "max_train": images}, **changes}


def sources(job):
    """Return what a job reads beside the images and the network that it is about."""
    return {name: files for name, files in job.inputs.items() if name not in ("listing", "weights")}


def evaluation_inputs(plan, evaluation):
    """Return what an evaluation of any network reads beside it."""
    inputs = EvaluationJob.of(plan, "given", 0, evaluation).inputs
    assert inputs.pop("weights") == "results/s/teachers/given.safetensors"
    return inputs


def results(*names):
    return {f"results/s/evaluation/{name}.json" for name in names}


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("teachers.big.training.batch_size", {"teachers": {"big": {**SMALL, "training": {"batch_size": 100}}}}),
        ("students.x.training.batch_size", {"students": {"x": {**SMALL, "training": {"batch_size": 100}}}}),
        ("bags.b.size", {"bags": {"b": {**KNN, "size": 99}}}),
        ("bags.b.size", {"bags": {"b": {"criterion": "random", "size": 99}}}),
        ("bags.b.search.ivf.lists", {"bags": {"b": {**KNN, "search": {"ivf": {"lists": 100, "probes": 1}}}}}),
        ("bags.b.clusters", {"bags": {"b": {**KMEANS, "teacher": "big", "clusters": 100}}}),
    ],
)
def test_what_needs_more_images_than_there_are_is_refused(key, entry):
    assert plan(**demo(100, **entry)).facts.most_images == 100
    message = refusal(**demo(99, **entry))
    assert message.startswith(f"{key}: ")
    assert "99" in message


def of_every_kind():
    """A plan with a student for each way to learn from a teacher."""
    views = {"training": {**TRAINING, "views": "small", "precision": "float32"}, "backbone": BACKBONE}
    stored = {"backbone": BACKBONE, "teacher_views": 2, "training": TRAINING}
    bingo = {"method": "bingo", "bags": "knn"}
    return plan(
        bags={
            "knn": KNN,
            "kmeans": {**KMEANS, "teacher": "big"},
            "label": {"criterion": "label"},
            "random": {"criterion": "random"},
        },
        students={
            "alone": SMALL,
            "online": {**bingo, **views},
            "stored": {**bingo, "bags": "kmeans", "teacher_views": 2, **views},
            "auto": STORED,
            "label": {**bingo, "bags": "label", "teacher": "given", **views},
            "random": {**bingo, "bags": "random", "teacher": "big", "teacher_views": 1, **views},
            "disco": {"method": "disco", "teacher": "big", **stored},
            "compress": {"method": "compress", "teacher": "big", **stored},
            "intra": {**bingo, "terms": ["intra"], **stored},
            "inter": {**bingo, "terms": ["inter"], **stored},
            "cutmix": {**bingo, "objective": "official", "terms": ["cutmix"], **stored},
        },
    )


def test_a_student_waits_for_bags_and_its_teacher_or_for_each_of_the_outputs_in_its_place():
    plan = of_every_kind()
    teachers, big = "results/s/teachers", "results/s/targets/big"
    knn = {"bags": "results/s/bags/knn.h5"}
    paper = {"targets": [f"{big}/paper-auto-projection-0-2.h5"]}
    assert {name: sources(StudentJob.of(plan, name, 0)) for name in plan.study.students} == {
        "alone": {},
        "online": {"teacher": f"{teachers}/big.safetensors", **knn},
        "stored": {"targets": [f"{big}/small-float32-projection-0-2.h5"], "bags": "results/s/bags/kmeans.h5"},
        "auto": {"targets": ["results/s/targets/given/paper-auto-projection-0-2.h5"]},
        "label": {"teacher": f"{teachers}/given.safetensors", "bags": "results/s/bags/label.h5"},
        "random": {"targets": [f"{big}/small-float32-projection-0-1.h5"], "bags": "results/s/bags/random.h5"},
        "disco": {"targets": [f"{big}/paper-auto-projection-{number}-2.h5" for number in (0, 1)]},
        "compress": {"targets": [f"{big}/crop-flip-auto-features-0-2.h5"]},
        "intra": paper,  # it draws no positives, so it waits for no bags
        "inter": {**paper, **knn},
        "cutmix": {**paper, **knn},
    }


def test_bags_wait_for_a_teacher_and_its_embeddings_if_they_are_made_from_any():
    inputs = {"teacher": "results/s/teachers/big.safetensors", "embeddings": "results/s/embeddings/big.h5"}
    found = {name: sources(BagsJob.of(of_every_kind(), name)) for name in of_every_kind().study.bags}
    assert found == {"knn": inputs, "kmeans": inputs, "label": {}, "random": {}}


def test_imported_teachers_are_not_trained_and_have_no_log():
    found = plan(seeds=[0])
    assert found.trained_teachers() == ["big"]
    assert found.checkpoints() == {"given": "results/s/students/alone/seed-3/backbone.safetensors"}
    assert found.training_logs() == {
        "big": "results/s/teachers/big.csv",
        **{f"{name}/seed-0": f"results/s/students/{name}/seed-0/log.csv" for name in ("alone", "distilled")},
    }
    assert "results/s/teachers/given.safetensors" in found.all_weights()


def test_label_bags_of_data_without_labels_are_refused():
    bags = {"classes": {"criterion": "label"}}
    changes = {"bags": bags, "students": {}, "evaluations": [], "tables": {}}
    assert plan(**changes).facts.labels
    for data in (FLAT, {**STUDY["data"], "labels": "none"}):
        assert refusal(**changes, data=data).startswith("bags.classes: ")


def test_errors_are_read_from_the_logs_of_this_run_alone(tmp_path):
    folder = tmp_path / "logs/s/bags"
    folder.mkdir(parents=True)
    lines = {"old": "1999-12-31 23:59:59 error: long ago", "new": "2026-01-01 00:00:00 error: x.h5: damaged", "ok": "7"}
    for name, line in lines.items():
        (folder / f"{name}.log").write_text(f"2026-01-01 00:00:00 knn: 7 of 9 images\n{line}\n")
    os.utime(folder / "old.log", (1000, 1000))
    assert plan().faults(since=2000) == ["logs/s/bags/new.log: x.h5: damaged"]
    assert len(plan().faults(since=0)) == 2


def test_every_network_is_evaluated_by_every_protocol_of_the_study():
    found = plan(evaluations=["knn-10", "cifar10-linear"])
    runs = ("big/seed-7", "given/seed-0", "alone/seed-3", "alone/seed-4", "distilled/seed-3", "distilled/seed-4")
    expected = results(*(f"{run}/{name}" for run in runs for name in ("knn-10", "cifar10-linear")))
    assert set(found.all_results()) == set(found.table_results("all")) == expected
    assert len(found.all_results()) == len(expected)
    assert set(found.network_results("alone", 4)) == results("alone/seed-4/knn-10", "alone/seed-4/cifar10-linear")


def test_what_only_a_table_names_is_evaluated_for_its_networks_alone():
    tables = {
        "one": {"title": "T", "students": ["alone"], "evaluations": ["knn-20", "coco-mask-rcnn"]},
        "two": {"title": "T", "students": ["distilled"], "evaluations": ["semi-1", "knn-10"]},
        "three": {"title": "T", "students": ["distilled"], "evaluations": ["semi-10"], "teachers": False},
    }
    found = plan(tables=tables, transfer={"coco": COCO})
    alone, distilled = [f"alone/seed-{seed}" for seed in (3, 4)], [f"distilled/seed-{seed}" for seed in (3, 4)]
    one = results(*(f"{run}/{name}" for run in alone for name in ("knn-20", "coco-mask-rcnn")))
    two = results(*(f"{run}/{name}" for run in ("big/seed-7", *distilled) for name in ("semi-1", "knn-10")))
    three = results(*(f"{run}/semi-10" for run in distilled))
    assert {name: set(found.table_results(name)) for name in tables} == {"one": one, "two": two, "three": three}
    everywhere = results(*(f"{run}/knn-10" for run in ("big/seed-7", "given/seed-0", *alone, *distilled)))
    assert set(found.all_results()) == one | two | three | everywhere
    assert found.detections() == ["coco-mask-rcnn"]
    assert sorted(found.classifications()) == ["knn-10", "knn-20", "semi-1", "semi-10"]
    assert DetectionJob.of(found, "alone", 3, "coco-mask-rcnn").val_annotations == Path("coco/v.json")


def test_an_evaluation_waits_for_the_listings_of_its_images_and_for_its_list_of_labels():
    data = {**STUDY["data"], "label_lists": {"semi-1": "list.txt"}}
    asked = ["knn-10", "semi-1", "semi-10", "flowers-semi-1", "cifar10-linear"]
    found = plan(data=data, evaluations=asked, transfer={"flowers": FLOWERS})

    def listings(folder):
        return {"listing": f"{folder}/train-listing.h5", "val_listing": f"{folder}/val-listing.h5"}

    own = listings("results/s/data")
    assert {name: evaluation_inputs(found, name) for name in found.requested} == {
        "knn-10": own,
        "semi-1": {**own, "label_list": "list.txt"},
        "semi-10": own,
        "flowers-semi-1": listings("results/s/data/flowers"),  # the list names the study's own images
        "cifar10-linear": listings("results/s/data/cifar10"),
    }
    assert found.targets["flowers"].folders == {
        split: [f"flowers/{split}", f"flowers/{split}/a", f"flowers/{split}/b"] for split in ("train", "val")
    }
    assert found.targets["cifar10"].folders == {"train": [], "val": []}


def test_a_packed_study_reads_its_own_images_from_packs_and_others_from_their_folders():
    data = {**STUDY["data"], "pack": {}}
    found = plan(data=data, evaluations=["knn-10", "flowers-knn-10"], transfer={"flowers": FLOWERS})
    packs = {"listing": "results/s/data/train.h5", "val_listing": "results/s/data/val.h5"}
    assert evaluation_inputs(found, "knn-10") == packs
    assert evaluation_inputs(found, "flowers-knn-10")["listing"] == "results/s/data/flowers/train-listing.h5"
    assert found.listing("train") == packs["listing"]
    assert MapFigureJob.of(found, "alone").inputs["listing"] == packs["val_listing"]
    assert plan().listing("train") == "results/s/data/train-listing.h5"


@pytest.mark.parametrize("where", ["evaluations", "tables"])
@pytest.mark.parametrize(
    ("changes", "key", "named"),
    [
        ({"val": None}, "transfer.flowers", "flowers-knn-10"),
        ({"labels": "none"}, "transfer.flowers", "flowers-knn-10"),
        ({"train": "flat", "val": "flat"}, "transfer.flowers", "flowers-knn-10"),
        ({"train": "nowhere"}, "transfer.flowers.train", "nowhere"),
        ({"val": "nowhere"}, "transfer.flowers.val", "nowhere"),
        ({"train": "flat", "labels": "folders"}, "transfer.flowers.train", "flat"),
    ],
)
def test_another_set_without_what_it_takes_is_refused_by_its_key(changes, key, named, where):
    asked = ["flowers-knn-10"]
    use = {"evaluations": asked} if where == "evaluations" else {"tables": {"t": {"title": "T", "evaluations": asked}}}
    message = refusal(transfer={"flowers": {**FLOWERS, **changes}}, **use)
    assert message.startswith(f"{key}: ")
    assert named in message
    # If nothing is evaluated on it nobody looks at it.
    assert plan(transfer={"flowers": {**FLOWERS, **changes}}).targets == {}


def naming(key, path):
    """Return the changes of a study that names ``path`` at a key."""
    *_, last = key.split(".")
    if key.startswith("transfer"):
        return {"transfer": {"coco": {**COCO, last: path}}, "evaluations": ["coco-faster-rcnn"]}
    if key.startswith("data"):
        return {"data": {**STUDY["data"], "label_lists": {last: path}}}
    if key.startswith("teachers"):
        return {"teachers": {**STUDY["teachers"], "given": {"checkpoint": path}}}
    return {"tables": {"all": {"title": "T", "published": path}}}


FILES = [f"transfer.coco.{name}" for name in ("train", "train_annotations", "val", "val_annotations")]
FILES += ["data.label_lists.semi-10", "tables.all.published", "teachers.given.checkpoint"]


@pytest.mark.parametrize("path", ["nowhere.txt", "results/other/x.pt", "a{b}.txt", "a}.txt"])
@pytest.mark.parametrize("key", FILES)
def test_files_that_are_missing_or_have_braces_are_refused_by_their_keys(key, path, tmp_path):
    if "}" in path:
        (tmp_path / path).touch()  # Snakemake would take the braces for a wildcard
    message = refusal(**naming(key, path))
    assert message.startswith(f"{key}: ")
    assert path in message


def test_published_numbers_without_the_columns_are_refused_by_their_key(tmp_path):
    columns = "method,student,teacher,protocol,metric,published,source\n"
    (tmp_path / "odd.csv").write_text(columns.replace("published", "number"))
    message = refusal(**naming("tables.all.published", "odd.csv"))
    assert message.startswith("tables.all.published: odd.csv")
    assert "published" in message.removeprefix("tables.all.published")
    (tmp_path / "paper.csv").write_text(columns)
    found = plan(tables={"all": {"title": "T", "published": "paper.csv"}, "none": {"title": "T"}})
    assert TableJob.of(found, "all").inputs["published"] == "paper.csv"
    assert "published" not in TableJob.of(found, "none").inputs


@pytest.mark.parametrize(
    ("folders", "is_imagenet"),
    [
        ([f"n{i * 7919:08}" for i in range(1000)], True),
        ([f"n{i:08}" for i in range(999)], False),
        ([f"n{i:08}" for i in range(1001)], False),
        (["n0000000", *(f"n{i:08}" for i in range(1, 1000))], False),
    ],
    ids=["imagenet", "one less", "one more", "another name"],
)
def test_on_imagenet_a_share_of_the_labels_is_that_of_its_published_list(folders, is_imagenet, tmp_path):
    for name in folders:
        (tmp_path / "images" / name).mkdir(parents=True)
    data = {"source": "folder", "train": "images", "val": "images"}
    for use in ({"evaluations": ["semi-1"]}, {"tables": {"t": {"title": "T", "evaluations": ["semi-1"]}}}):
        if not is_imagenet:
            assert plan(data=data, **use).left_out == ""
            continue
        message = refusal(data=data, **use)
        assert message.startswith("data.label_lists: ")
        assert "semi-1 " in message
        listed = plan(data={**data, "label_lists": {"semi-1": "list.txt"}}, **use)
        assert evaluation_inputs(listed, "semi-1")["label_list"] == "list.txt"
    assert plan(data=data, evaluations=["knn-10", "linear-moco", "cifar10-finetune", "cifar10-semi-1"]).left_out == ""


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        ({"source": "folder", "train": "photos/train"}, "validation images"),
        ({**STUDY["data"], "labels": "none"}, "labels"),
        ({**FLAT, "val": "flat"}, "labels"),
        (FLAT, "labels"),
    ],
)
def test_without_labels_or_validation_images_what_is_evaluated_elsewhere_remains(data, missing):
    changes = {
        "data": data,
        "transfer": {"flowers": FLOWERS, "coco": COCO},
        "evaluations": ["knn-10", "flowers-knn-10", "coco-mask-rcnn", "linear-moco"],
        "tables": {"all": {"title": "T"}, "own": {"title": "T", "evaluations": ["knn-10"]}},
    }
    found = plan(**changes)
    assert found.tables == ["all"]
    assert found.table_evaluations("all") == ["flowers-knn-10", "coco-mask-rcnn"]
    assert {Path(path).stem for path in found.all_results()} == {"flowers-knn-10", "coco-mask-rcnn"}
    assert {name for name in found.figures() if name.startswith("accuracy")} == {"accuracy-all"}
    assert missing in found.left_out
    assert all(name in found.left_out for name in ("knn-10", "linear-moco", "own"))
    assert "flowers" not in found.left_out
    nothing = plan(**{**changes, "evaluations": ["knn-10"]})
    assert (nothing.tables, nothing.all_results(), missing in nothing.left_out) == ([], [], True)
    assert plan(**{**changes, "evaluations": [], "tables": {}}).left_out == ""


def test_figures_are_those_that_the_study_has_something_for():
    maps = ["map-big", "map-given", "map-alone", "map-distilled"]
    assert plan().figures() == ["accuracy-all", "training", "purity-big", "similarity-knn", *maps]
    bags = {**STUDY["bags"], "kmeans": KMEANS, "label": {"criterion": "label"}}
    more = plan(bags=bags, tables={"x": {"title": "T"}, "y": {"title": "T"}}).figures()
    assert more[:6] == ["accuracy-x", "accuracy-y", "training", "purity-big", "purity-given", "similarity-knn"]
    assert plan(data=FLAT).figures() == ["training", "similarity-knn", *maps]
    given = {"given": STUDY["teachers"]["given"]}
    imported = plan(teachers=given, bags={}, students={}, evaluations=[], tables={})
    assert imported.figures() == ["map-given"]


def test_students_with_bags_of_several_sizes_have_a_figure_of_them():
    nine = {"knn": KNN, "more": {**KNN, "size": 9}}
    changes = {"bags": nine, "students": {"alone": SMALL, "five": DISTILLED, "nine": {**DISTILLED, "bags": "more"}}}
    found = plan(**changes, evaluations=["knn-10", "cifar10-linear"])
    assert "bag-size" in found.figures()
    assert found.bag_size_evaluations() == ["knn-10", "cifar10-linear"]
    runs = [
        f"{name}/seed-{seed}/{protocol}" for name in ("five", "nine") for seed in (3, 4) for protocol in found.requested
    ]
    assert set(found.bag_size_results()) == results(*runs)
    blind = plan(**changes, data=FLAT, evaluations=["knn-10", "cifar10-linear"])
    assert blind.bag_size_evaluations() == ["cifar10-linear"]
    for few in (plan(), plan(**changes, evaluations=[]), plan(**changes, data=FLAT)):
        assert "bag-size" not in few.figures()
        assert few.bag_size_results() == []


def test_maps_show_validation_images_if_there_are_any_and_the_first_seed_of_a_student():
    blind = plan(data={"source": "folder", "train": "photos/train"})
    big, alone, unseen = MapFigureJob.of(plan(), "big"), MapFigureJob.of(plan(), "alone"), MapFigureJob.of(blind, "big")
    assert (alone.split, alone.listing) == ("val", Path("results/s/data/val-listing.h5"))
    assert (unseen.split, unseen.listing) == ("train", Path("results/s/data/train-listing.h5"))
    assert big.weights == Path("results/s/teachers/big.safetensors")
    assert alone.weights == Path("results/s/students/alone/seed-3/backbone.safetensors")


def test_sheets_of_the_best_and_worst_bags_need_something_to_rank_them_by():
    changes = {"bags": {"knn": KNN, "random": {"criterion": "random"}}, "students": {"alone": SMALL}}

    def pages(name, *pages):
        first = {f"{name}/random": f"results/s/bags/{name}.png"}
        return first | {f"{name}/{page}": f"results/s/figures/{page}-{name}.png" for page in pages}

    knn = pages("knn", "more", "best", "worst")
    assert plan(**changes).sheets() == {**knn, **pages("random", "more", "best", "worst")}
    assert plan(**changes, data=FLAT).sheets() == {**knn, **pages("random", "more")}


def with_costs():
    """A plan with a job of every stage that computes."""
    return plan(
        bags={**STUDY["bags"], "nine": {**KNN, "size": 9}, "kmeans": KMEANS, "random": {"criterion": "random"}},
        students={
            "alone": SMALL,
            "distilled": DISTILLED,
            "nine": {**DISTILLED, "bags": "nine"},
            "one": STORED,
            "two": {**STORED, "temperature": 0.5},
            "three": {**STORED, "method": "disco"},
        },
        transfer={"coco": COCO, "flowers": FLOWERS},
        evaluations=["knn-10", "flowers-linear"],
        tables={
            "all": {"title": "T"},
            "boxes": {"title": "T", "students": ["alone"], "evaluations": ["coco-mask-rcnn"]},
        },
    )


def test_costs_are_noted_of_every_job_that_computes():
    found = with_costs()
    runs = [f"{name}/seed-{seed}" for name in found.study.students for seed in (3, 4)]
    networks = ("big/seed-7", "given/seed-0", *runs)
    jobs = {
        "teacher": ["big"],  # the other is only read
        "embeddings": ["big", "given"],
        "bags": ["knn", "nine", "kmeans", "random"],
        "targets": ["given/paper-auto-projection-0-2", "given/paper-auto-projection-1-2"],
        "student": runs,
        "evaluation": [f"{run}/{name}" for run in networks for name in ("knn-10", "flowers-linear")],
        "detection": ["alone/seed-3/coco-mask-rcnn", "alone/seed-4/coco-mask-rcnn"],
    }
    expected = {stage: [f"results/s/benchmarks/{stage}/{name}.tsv" for name in names] for stage, names in jobs.items()}
    assert found.benchmarks() == expected
    assert list(found.benchmarks()) == list(jobs)  # in the order of the work, for the report
    few = plan(bags={}, students={"alone": SMALL}, evaluations=[], tables={})
    assert set(few.benchmarks()) == {"teacher", "student"}
