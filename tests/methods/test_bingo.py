import pytest
import torch
import torch.nn.functional as F

from .literal import BATCH, COMMON, Literal, build, cross_entropy, descend, require_same_step, step_input, train_step

TEMPERATURE = 0.2


def literal_step(literal, images, terms):
    """The paper's equations 4 to 6."""
    target = literal.target(images["anchor_target"])
    (queue,) = literal.queues.values()
    losses = {}
    for term, name in (("intra", "anchor"), ("inter", "positive")):
        if term in terms:
            losses[term] = cross_entropy(literal.embed(images[name]), target, queue, TEMPERATURE)
    loss = sum(losses.values())
    gradients = descend(literal.student, loss)
    literal.enqueue(next(iter(literal.queues)), target)
    return {name: float(value.detach()) for name, value in {"loss": loss, **losses}.items()}, gradients


@pytest.mark.parametrize("terms", [["intra", "inter"], ["inter", "intra"], ["intra"], ["inter"]])
def test_several_steps_are_those_of_a_literal_transcription(terms, teacher):
    learner = build("bingo", teacher, terms=terms)
    literal = Literal(learner, teacher)
    for number in range(5):  # the queue wraps round
        batch = step_input(learner, number)
        found = train_step(learner, batch)
        require_same_step(learner, literal, found, literal_step(literal, batch.images, terms))


def test_by_default_both_terms_count_the_same(teacher):
    values = [build("bingo", teacher, terms=terms) for terms in (None, ["intra", "inter"])]
    first, second = (train_step(learner, step_input(learner, 0))[0] for learner in values)
    assert first == second
    assert first["loss"] == pytest.approx(first["intra"] + first["inter"])


def test_the_queue_takes_the_teachers_embeddings_of_the_anchor_after_the_step(teacher):
    learner = build("bingo", teacher)
    (queue,) = learner.queues.values()
    before, batch = queue.keys.clone(), step_input(learner, 0)
    learner(batch, torch.float32)
    assert torch.equal(queue.keys, before)
    learner.after_step()
    assert learner.method.views()["anchor_target"].image == "anchor"
    keys = F.normalize(teacher.head(teacher.backbone(batch.images["anchor_target"])), dim=1)
    torch.testing.assert_close(queue.keys[:BATCH], keys)
    assert torch.equal(queue.keys[BATCH:], before[BATCH:])


def test_gradients_of_both_terms_reach_the_student_and_none_the_teachers_view(teacher):
    learner = build("bingo", teacher)
    batch = step_input(learner, 0)
    for view in batch.images.values():
        view.requires_grad_()
    learner(batch, torch.float32)["loss"].backward()
    assert batch.images["anchor"].grad.abs().max() > 0
    assert batch.images["positive"].grad.abs().max() > 0
    assert batch.images["anchor_target"].grad is None


def test_three_different_views_are_asked_for_one_of_them_of_a_bag_member(teacher):
    views = build("bingo", teacher).method.views()
    assert {name: view.image for name, view in views.items()} == {
        "anchor": "anchor",
        "positive": "positive",
        "anchor_target": "anchor",
    }
    # The student's two differ in number, for an image that is its own bag's only member.
    assert views["anchor"].slot != views["positive"].slot
    seen = {name: (view.student, view.teacher) for name, view in views.items()}
    assert seen == {"anchor": (True, False), "positive": (True, False), "anchor_target": (False, True)}


@pytest.mark.parametrize(
    ("keys", "expected", "draws"),
    [
        ({"terms": ["intra"]}, ["anchor", "anchor_target"], False),
        ({"terms": ["inter"]}, ["positive", "anchor_target"], True),
        ({"terms": ["inter", "intra"]}, ["anchor", "positive", "anchor_target"], True),
    ],
)
def test_the_paper_has_the_views_that_its_terms_need(keys, expected, draws, teacher):
    method = build("bingo", teacher, **keys).method
    assert list(method.views()) == expected
    assert method.draws_positives() is draws
    whole = build("bingo", teacher).method
    assert all(whole.views()[name] == view for name, view in method.views().items())
    assert method.teacher_view_slots() == whole.teacher_view_slots() == [0]


@pytest.mark.parametrize("terms", [None, ["intra"], ["cutmix"], ["intra", "inter"]])
def test_the_released_codes_objective_has_both_images_whatever_its_terms(terms, teacher):
    method = build("official", teacher, terms=terms).method
    assert set(method.views()) == {"anchor", "positive", "anchor_target", "positive_target"}
    assert method.draws_positives()


@pytest.mark.parametrize("name", ["bingo", "official"])
def test_the_students_head_ends_at_the_teachers_width(name, teacher):
    learner = build(name, teacher)
    assert learner.head[0].out_features == 20
    assert learner.head[2].out_features == teacher.dim == 12
    assert build(name, teacher, head={"hidden": None}).head[0].out_features == 32
    assert build(name, teacher, head={}).head[0].out_features == 2048


def test_the_queue_is_as_long_as_asked_for_and_as_wide_as_the_teacher(teacher):
    (queue,) = build("bingo", teacher).queues.values()
    assert queue.keys.shape == (COMMON["queue_size"], teacher.dim)
