import pytest

from .literal import build, cross_entropy, descend, require_literal_steps

TEMPERATURE = 0.2


def literal_step(literal, batch, terms):
    """The paper's equations 4 to 6."""
    target = literal.target(batch.images["anchor_target"])
    ((name, queue),) = literal.queues.items()
    losses = {}
    for term, view in (("intra", "anchor"), ("inter", "positive")):
        if term in terms:
            losses[term] = cross_entropy(literal.embed(batch.images[view]), target, queue, TEMPERATURE)
    loss = sum(losses.values())
    gradients = descend(literal.student, loss)
    literal.enqueue(name, target)
    return {"loss": loss, **losses}, gradients


@pytest.mark.parametrize("terms", [None, ["inter", "intra"], ["intra"], ["inter"]])
def test_several_steps_are_those_of_a_literal_transcription(terms, teacher):
    model, expected = build("bingo", teacher, terms=terms), terms or ["intra", "inter"]
    require_literal_steps(model, teacher, lambda literal, batch: literal_step(literal, batch, expected))


@pytest.mark.parametrize(
    ("terms", "views"),
    [
        (["intra"], ["anchor", "anchor_target"]),
        (["inter"], ["positive", "anchor_target"]),
        (["inter", "intra"], ["anchor", "positive", "anchor_target"]),
    ],
)
def test_the_paper_has_the_views_that_its_terms_need(terms, views, teacher):
    method, whole = (build("bingo", teacher, **keys).method for keys in ({"terms": terms}, {}))
    assert list(method.views()) == views
    assert method.draws_positives() is ("inter" in terms)
    assert all(whole.views()[name] == view for name, view in method.views().items())
    assert method.teacher_view_slots() == whole.teacher_view_slots() == [0]
