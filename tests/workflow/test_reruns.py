"""What reruns when one key changes: exactly what depends on it."""

import copy

import pytest

from .conftest import tiny_study

pytestmark = pytest.mark.xdist_group("finished")

END = {"table:main", "table_text:main", "accuracy_figure:main", "training_figure", "report"}
EVALUATE_DISTILLED = {"evaluation:distilled:0:linear-moco-small", "evaluation:distilled:0:knn-10"}
EVALUATE_ALL = EVALUATE_DISTILLED | {
    f"evaluation:{model}:0:{protocol}" for model in ("big", "alone") for protocol in ("linear-moco-small", "knn-10")
}
FROM_BAGS = {"bags:knn", "sheet:knn", "student:distilled:0", *EVALUATE_DISTILLED, *END}
FROM_TEACHER = {
    "teacher:big",
    "embeddings:big",
    "evaluation:big:0:linear-moco-small",
    "evaluation:big:0:knn-10",
    *FROM_BAGS,
}


def teacher_lr(study):
    study["teachers"]["big"]["training"] = {**study["teachers"]["big"]["training"], "lr": 0.01}


def bag_size(study):
    study["bags"]["knn"]["size"] = 4


def student_lr(study):
    study["students"]["distilled"]["training"] = {**study["students"]["distilled"]["training"], "lr": 0.01}


def second_student(study):
    study["students"]["distilled-2"] = copy.deepcopy(study["students"]["distilled"])


def evaluation_k(study):
    study["evaluations"][1] = "knn-20"


def workers(study):
    study["data"]["workers"] = 2


def table_title(study):
    study["tables"]["main"]["title"] = "Another title"


def image_size(study):
    study["data"]["preprocessing"] = {"size": 24, "resize": 28}


def nothing(study):
    pass


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        (nothing, set()),
        (teacher_lr, FROM_TEACHER),
        (bag_size, FROM_BAGS),
        (student_lr, {"student:distilled:0", *EVALUATE_DISTILLED, *END}),
        (
            second_student,
            {
                "student:distilled-2:0",
                "evaluation:distilled-2:0:linear-moco-small",
                "evaluation:distilled-2:0:knn-10",
                *END,
            },
        ),
        (
            evaluation_k,
            {
                *(f"evaluation:{model}:0:knn-20" for model in ("big", "alone", "distilled")),
                *(END - {"training_figure"}),
            },
        ),
        (workers, set()),
        (table_title, {"table_text:main"}),
        (image_size, {*FROM_TEACHER, "student:alone:0", *EVALUATE_ALL}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_changed_key_reruns_exactly_what_depends_on_it(finished, change, jobs):
    study = tiny_study()
    change(study)
    finished.write(study)
    assert finished.planned() == jobs


def test_a_touched_input_reruns_nothing(finished):
    finished.write(tiny_study())
    (finished.folder / "results/tiny/data/listing.h5").touch()
    assert finished.planned() == set()
