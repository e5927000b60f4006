import pytest
import torch

from .literal import BATCH, QUEUE, Literal, build, descend, oldest_first, require_same_step, step_input, train_step

MOMENTUM = 0.9


def similarities(embedding, queue, temperature):
    exponentials = torch.stack([torch.exp(embedding @ n.double() / temperature) for n in queue])
    return exponentials / exponentials.sum()


def literal_step(literal, images, variant, temperature):
    """KL(softmax(t Q_t / tau) || softmax(s Q_s / tau)) of pooled features; 2q: Q_s of the student's average."""
    student, target = literal.embed(images["image"]), literal.target_features(images["image"])
    if variant == "2q":
        literal.move_average(MOMENTUM)
        key = literal.key(images["image"])
    theirs, ours = literal.queues["teacher"], literal.queues["student" if variant == "2q" else "teacher"]
    terms = []
    for s, t in zip(student.double(), target.double(), strict=True):
        p, q = similarities(t, theirs, temperature), similarities(s, ours, temperature)
        terms.append(sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True)))
    loss = sum(terms) / len(terms)
    gradients = descend(literal.student, loss)
    literal.enqueue("teacher", target)
    if variant == "2q":
        literal.enqueue("student", key)
    return {"loss": float(loss.detach())}, gradients


@pytest.mark.parametrize("temperature", [0.04, 0.2])
@pytest.mark.parametrize("variant", ["2q", "1q"])
def test_several_steps_are_those_of_a_literal_transcription(variant, temperature, teacher):
    learner = build(f"compress {variant}", teacher, temperature=temperature)
    literal = Literal(learner, teacher)
    for number in range(5):  # the queues wrap round
        batch = step_input(learner, number)
        found = train_step(learner, batch)
        expected = literal_step(literal, batch.images, variant, temperature)
        require_same_step(learner, literal, found, expected)


def test_2q_has_no_head_and_compares_features_and_not_projections(teacher):
    learner = build("compress 2q", teacher)
    assert len(learner.head) == 0
    assert {name: queue.keys.shape for name, queue in learner.queues.items()} == {
        "teacher": (QUEUE, 16),
        "student": (QUEUE, 32),
    }
    assert (teacher.features, teacher.dim) == (16, 12)
    hook = teacher.head.register_forward_hook(lambda *_: pytest.fail("the teacher's head was used"))
    train_step(learner, step_input(learner, 0))
    hook.remove()


def test_1q_has_one_linear_layer_to_the_teachers_features_one_queue_and_no_moving_average(teacher):
    learner = build("compress 1q", teacher)
    (layer,) = learner.head
    assert (layer.in_features, layer.out_features) == (32, 16)
    assert layer.bias is not None
    assert list(learner.queues) == ["teacher"]
    assert learner.momentum_encoder is None


def test_both_queues_of_2q_hold_the_same_images_at_the_same_places(teacher):
    # With momentum 1 the average stays as it is, so all its keys can be made again afterwards.
    learner = build("compress 2q", teacher, key_momentum=1.0)
    literal = Literal(learner, teacher)
    seen = []
    for number in range(5):
        batch = step_input(learner, number)
        seen.append(batch.images["image"])
        train_step(learner, batch)
    for name, embed in (("teacher", literal.target_features), ("student", literal.key)):
        expected = torch.cat([embed(images) for images in seen])[-QUEUE:]
        torch.testing.assert_close(oldest_first(learner.queues[name]), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(learner.queues["teacher"].position, learner.queues["student"].position)


@pytest.mark.parametrize("variant", ["2q", "1q"])
def test_features_join_the_queues_after_the_loss(variant, teacher):
    learner = build(f"compress {variant}", teacher)
    before = {name: queue.keys.clone() for name, queue in learner.queues.items()}
    learner(step_input(learner, 0), torch.float32)
    assert all(torch.equal(queue.keys, before[name]) for name, queue in learner.queues.items())
    learner.after_step()
    for name, queue in learner.queues.items():
        assert not torch.isclose(queue.keys[:BATCH], before[name][:BATCH]).all(1).any()
        assert torch.equal(queue.keys[BATCH:], before[name][BATCH:])


def test_its_recipe_is_compresss_own(teacher):
    # SGD .01, x .2 at epochs 90 and 120 of 130, weight decay 1e-4, batch 256; a crop and a flip.
    training = build("compress 2q", teacher).method.training
    assert (training.epochs, training.lr, training.batch_size, training.weight_decay) == (130, 0.01, 256, 1e-4)
    assert (training.schedule.milestones, training.schedule.factor, training.views) == ([90, 120], 0.2, "crop-flip")
    defaults = {name: field.default for name, field in type(build("compress 2q", teacher).method).model_fields.items()}
    assert (defaults["queue_size"], defaults["temperature"], defaults["key_momentum"]) == (128_000, 0.04, 0.999)
