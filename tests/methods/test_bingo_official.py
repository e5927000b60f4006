import math
from itertools import combinations

import pytest
import torch
from scipy import stats

from bingo.philox import Stream, uniform

from .literal import BATCH, SIDE, Literal, build, cross_entropy, descend, require_same_step, step_input, train_step

TEMPERATURE = 0.2
TERMS = ("intra", "inter", "cutmix")
# All subsets in the epochs with inter pairs and in those without, where inter alone is refused.
CASES = [
    pytest.param(list(subset), inter_free, id=f"{'+'.join(subset)}{'-at-the-start' if inter_free else ''}")
    for count in (1, 2, 3)
    for subset in combinations(TERMS, count)
    for inter_free in (True, False)
    if (subset, inter_free) != (("inter",), True)
]


def literal_cutmix(anchor, positive, batch):
    """CutMix pixel by pixel: one box for the batch; and lambda, the share of pixels that stay the anchor's."""
    u, y, x = uniform(batch.seed, Stream.CUTMIX, [batch.step], batch.epoch, 0, 3)[0].tolist()
    half = int(SIDE * math.sqrt(1 - stats.beta(2, 2).ppf(u))) // 2
    mixed, left = anchor.clone(), 0
    for row in range(SIDE):
        for column in range(SIDE):
            inside_rows = int(y * SIDE) - half <= row < int(y * SIDE) + half
            if inside_rows and int(x * SIDE) - half <= column < int(x * SIDE) + half:
                mixed[:, :, row, column] = positive[:, :, row, column]
            else:
                left += 1
    return mixed, left / SIDE**2


def literal_step(literal, batch, terms, inter_free):
    """The reference's formula; the names of its cross-entropies are student's view, teacher's view."""
    images = batch.images
    target = {"a": literal.target(images["anchor_target"]), "p": literal.target(images["positive_target"])}
    name, queue = next(iter(literal.queues.items()))
    with_inter = "inter" in terms and not inter_free
    losses, views = {}, {}
    if "intra" in terms or with_inter:
        views = {"a": literal.embed(images["anchor"]), "p": literal.embed(images["positive"])}
    statistics = {key: value.clone() for key, value in literal.student.named_buffers()}
    if "cutmix" in terms:
        mixed, share = literal_cutmix(images["anchor"], images["positive"], batch)
        views["m"] = literal.embed(mixed)

    def ce(student, teacher):
        return cross_entropy(views[student], target[teacher], queue, TEMPERATURE)

    intra, inter = (lambda: ce("a", "a") + ce("p", "p")), (lambda: ce("a", "p") + ce("p", "a"))
    if "intra" in terms and with_inter:
        losses |= {"intra": 1 / 2 * intra(), "inter": 1 / 2 * inter()}
    elif "intra" in terms:
        losses["intra"] = intra()
    elif with_inter:
        losses["inter"] = inter()
    if "cutmix" in terms:
        losses["cutmix"] = share * ce("m", "a") + (1 - share) * ce("m", "p")
    loss = 1 / 3 * sum(losses.values())
    gradients = descend(literal.student, loss)
    # What CutMix images did to batch-norm's running statistics is undone.
    for key, value in literal.student.named_buffers():
        value.copy_(statistics[key])
    literal.enqueue(name, target["a"])
    return {key: float(value.detach()) for key, value in {"loss": loss, **losses}.items()}, gradients


@pytest.mark.parametrize(("terms", "inter_free"), CASES)
def test_several_steps_are_those_of_a_literal_transcription(terms, inter_free, teacher):
    learner = build("official", teacher, terms=terms, inter_free_epochs=2 if terms != ["inter"] else 0)
    literal = Literal(learner, teacher)
    epoch = 1 if inter_free else 2  # the last and the first of their kind
    for number in range(4):  # the queue wraps round
        batch = step_input(learner, number, epoch, seed=5)
        found = train_step(learner, batch)
        expected = literal_step(literal, batch, terms, inter_free)
        require_same_step(learner, literal, found, expected)


def test_one_run_over_both_regimes_is_that_of_a_literal_transcription(teacher):
    learner = build("official", teacher)
    literal = Literal(learner, teacher)
    logged = []
    for epoch in range(4):
        batch = step_input(learner, 0, epoch, seed=1)
        found = train_step(learner, batch)
        logged.append(set(found[0]))
        require_same_step(learner, literal, found, literal_step(literal, batch, TERMS, epoch < 2))
    assert logged == [{"loss", "intra", "cutmix"}] * 2 + [{"loss", "intra", "inter", "cutmix"}] * 2


def test_epochs_0_to_10_have_no_inter_pairs_unless_told_otherwise(teacher):
    learner = build("official", teacher, inter_free_epochs=None)
    for epoch, inter in ((0, False), (10, False), (11, True), (199, True)):
        values = learner(step_input(learner, 0, epoch), torch.float32)
        assert ("inter" in values) == inter
    learner = build("official", teacher, inter_free_epochs=0)
    assert "inter" in learner(step_input(learner, 0, 0), torch.float32)


def test_equal_embeddings_cost_the_log_of_one_plus_queue_in_either_regime(teacher):
    # Every cross-entropy is log(1 + Q): 1/3 (2 + 1) of them, with or without inter pairs.
    learner = build("official", teacher)
    for parameter in learner.head[2].parameters():
        parameter.data.zero_()
    learner.head[2].bias.data.fill_(1.0)
    (queue,) = learner.queues.values()
    one = torch.nn.functional.normalize(torch.ones(1, 12), dim=1)
    queue.keys.copy_(one.expand(len(queue.keys), -1))

    class Equal:
        def width(self, _layer):
            return 12

        def outputs(self, *_):
            return one.expand(BATCH, -1)

    learner.teacher = Equal()
    for epoch in (0, 5):
        values = learner(step_input(learner, 0, epoch), torch.float32)
        assert float(values["loss"].detach()) == pytest.approx(math.log(1 + len(queue.keys)), rel=1e-5)


@pytest.mark.parametrize("seed", [0, 7])
def test_cutmix_images_stay_out_of_the_running_statistics(seed, teacher):
    with_cutmix, without = (
        build("official", teacher, terms=terms) for terms in (["intra", "inter", "cutmix"], ["intra", "inter"])
    )
    for learner in (with_cutmix, without):
        learner(step_input(learner, 0, 5, seed), torch.float32)
    changed = 0
    for name, value in with_cutmix.backbone.named_buffers():
        assert torch.equal(value, dict(without.backbone.named_buffers())[name]), name
        changed += name.endswith("running_mean") and bool((value != 0).any())
    assert changed > 5
    # Anchor and member are two batches that count.
    assert int(with_cutmix.backbone.bn1.num_batches_tracked) == 2
    alone = build("official", teacher, terms=["cutmix"])
    alone(step_input(alone, 0, 5, seed), torch.float32)
    assert int(alone.backbone.bn1.num_batches_tracked) == 0
    assert (alone.backbone.bn1.running_mean == 0).all()


def test_cutmix_images_are_normalised_by_their_own_batch_and_the_student_trains_on(teacher):
    learner = build("official", teacher, terms=["cutmix"])
    for value in (learner.backbone.bn1.running_mean, learner.backbone.bn1.running_var):
        value.fill_(torch.nan)  # not read either
    _, gradients = train_step(learner, step_input(learner, 0))
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in gradients)
    assert all(module.training for module in learner.backbone.modules())


def test_the_queue_takes_the_teachers_outputs_of_the_anchor_alone(teacher):
    learner = build("official", teacher)
    literal = Literal(learner, teacher)
    batch = step_input(learner, 0, 5)
    train_step(learner, batch)
    (queue,) = learner.queues.values()
    torch.testing.assert_close(queue.keys[:BATCH], literal.target(batch.images["anchor_target"]))
    assert int(queue.position) == BATCH


def test_the_box_depends_on_seed_epoch_and_step(teacher):
    losses = set()
    images = None
    for seed, epoch, number in ((0, 5, 0), (1, 5, 0), (0, 6, 0), (0, 5, 1)):
        learner = build("official", teacher, terms=["cutmix"])
        batch = step_input(learner, number, epoch, seed)
        images = images or batch.images
        batch.images.update(images)
        losses.add(float(learner(batch, torch.float32)["loss"].detach()))
    assert len(losses) == 4


def test_four_views_are_asked_for_two_of_them_by_the_teacher_alone(teacher):
    views = build("official", teacher).method.views()
    found = {name: (view.image, view.student, view.teacher) for name, view in views.items()}
    assert found == {
        "anchor": ("anchor", True, False),
        "positive": ("positive", True, False),
        "anchor_target": ("anchor", False, True),
        "positive_target": ("positive", False, True),
    }
    assert views["anchor"].slot != views["positive"].slot
    # Both from one view of each image, so that one stored view of every image does.
    assert build("official", teacher).method.teacher_view_slots() == [0]
