import pytest
import torch

from .literal import build, descend, require_literal_steps, settings_of, step_input, train_step

MOMENTUM = 0.9


def similarities(embedding, queue, temperature):
    exponentials = torch.stack([torch.exp(embedding @ n.double() / temperature) for n in queue])
    return exponentials / exponentials.sum()


def literal_step(literal, batch, variant, temperature):
    """KL(softmax(t Q_t / tau) || softmax(s Q_s / tau)) of pooled features; 2q: Q_s of the student's average."""
    images = batch.images["image"]
    student, target = literal.embed(images), literal.target_features(images)
    if variant == "2q":
        literal.move_average(MOMENTUM)
        key = literal.key(images)
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
    return {"loss": loss}, gradients


@pytest.mark.parametrize("temperature", [0.04, 0.2])
@pytest.mark.parametrize("variant", ["2q", "1q"])
def test_several_steps_are_those_of_a_literal_transcription(variant, temperature, teacher):
    model = build(f"compress {variant}", teacher, temperature=temperature)
    require_literal_steps(model, teacher, lambda literal, batch: literal_step(literal, batch, variant, temperature))


@pytest.mark.parametrize("variant", ["2q", "1q"])
def test_the_teachers_head_is_not_used(variant, teacher):
    model = build(f"compress {variant}", teacher)
    hook = teacher.head.register_forward_hook(lambda *_: pytest.fail("the teacher's head was used"))
    train_step(model, step_input(model, 0))
    hook.remove()


def test_its_recipe_is_compresss_own():
    # SGD .01, x .2 at epochs 90 and 120 of 130, weight decay 1e-4, batch 256; a crop and a flip.
    method = settings_of("compress 2q")
    training = method.training
    assert (training.epochs, training.lr, training.batch_size, training.weight_decay) == (130, 0.01, 256, 1e-4)
    assert (training.schedule.milestones, training.schedule.factor, training.views) == ([90, 120], 0.2, "crop-flip")
    defaults = {name: field.default for name, field in type(method).model_fields.items()}
    assert (defaults["queue_size"], defaults["temperature"], defaults["key_momentum"]) == (128_000, 0.04, 0.999)
