import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from sklearn.preprocessing import StandardScaler

from bingo.errors import BingoError
from bingo.evaluation.linear import (
    LinearHeads,
    cached_batches,
    linear_accuracy,
    linear_learning_rate,
    standardiser,
    train_linear,
)
from bingo.study.protocols import PROTOCOLS, TRANSFER_PROTOCOLS, Linear
from bingo.study.sections import Steps

CPU = torch.device("cpu")
DIM, CLASSES, EPOCHS = 9, 7, 6
LRS = (0.001, 0.05, 0.5, 3.0)
ONCE = [1, 1, 0.1, 0.1, 0.1, 0.01]  # factors on the learning rate, epoch by epoch


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=50)
    features = rng.normal(size=(CLASSES, DIM))[labels] + rng.normal(size=(50, DIM))
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def batches(data):
    return cached_batches(*data, 16, seed=3)


def trained(batches, lrs, weight_decay=0.0, seed=3, epochs=EPOCHS):
    def rates(epoch):
        return [lr * ONCE[epoch] for lr in lrs]

    return train_linear(batches, DIM, CLASSES, seed, rates, epochs, weight_decay, CPU)


def test_classifiers_start_alike_from_small_normal_weights_and_zero_bias(batches):
    start = train_linear(batches, 300, 40, 5, lambda _: [1.0, 2.0, 3.0], 0, 0.0, CPU)
    assert start.weight.shape == (3, 40, 300)
    assert torch.equal(start.weight[0], start.weight[1])
    assert torch.equal(start.weight[0], start.weight[2])
    assert torch.equal(start.bias, torch.zeros(3, 40))
    weights = start.weight[0]
    assert float(weights.mean()) == pytest.approx(0, abs=4 * 0.01 / math.sqrt(12_000))
    assert float(weights.std()) == pytest.approx(0.01, rel=0.03)
    assert float((weights.abs() < 0.01).double().mean()) == pytest.approx(0.6827, abs=0.02)
    other = train_linear(batches, 300, 40, 6, lambda _: [1.0], 0, 0.0, CPU)
    assert (other.weight[0] != weights).double().mean() > 0.99


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_classifiers_side_by_side_are_each_torchs_own_sgd(batches, plain_sgd, weight_decay):
    found, start = trained(batches, LRS, weight_decay), trained(batches, LRS, epochs=0)
    ends = []
    for head, lr in enumerate(LRS):
        rates = [lr * factor for factor in ONCE]
        weight, bias = plain_sgd(batches, start.weight[0], start.bias[0], rates, weight_decay)
        torch.testing.assert_close(found.weight[head], weight, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.bias[head], bias, atol=1e-5, rtol=1e-5)
        ends.append(weight)
    assert (ends[2] - start.weight[0]).abs().max() > 0.3  # far from where it started
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(ends[1:], ends[:-1], strict=True))


def test_a_classifier_is_the_same_alone_as_among_others(batches):
    together = trained(batches, LRS, 0.01)
    for head, lr in enumerate(LRS):
        alone, picked = trained(batches, [lr], 0.01), together.pick(head)
        torch.testing.assert_close(picked.weight, alone.weight, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(picked.bias, alone.bias, atol=1e-6, rtol=1e-5)


def test_a_classifier_that_diverges_does_not_disturb_the_others(batches):
    sound, disturbed = trained(batches, LRS, 0.01), trained(batches, [*LRS, 1e6], 0.01)
    assert not disturbed.weight[-1].isfinite().any()
    torch.testing.assert_close(disturbed.weight[:-1], sound.weight, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(disturbed.bias[:-1], sound.bias, atol=1e-6, rtol=1e-5)


def test_training_ignores_and_keeps_the_global_generator(batches):
    torch.manual_seed(1)
    untouched = torch.rand(3)
    torch.manual_seed(1)
    first = trained(batches, LRS)
    assert torch.equal(torch.rand(3), untouched)
    assert torch.equal(trained(batches, LRS).weight, first.weight)


def test_logits_are_those_of_each_classifier():
    torch.manual_seed(0)
    heads = LinearHeads(torch.randn(4, CLASSES, DIM), torch.randn(4, CLASSES))
    features = torch.randn(11, DIM)
    logits = heads(features)
    assert logits.shape == (4, CLASSES, 11)
    for head in range(4):
        expected = torch.nn.functional.linear(features, heads.weight[head], heads.bias[head]).T
        torch.testing.assert_close(logits[head], expected)
        torch.testing.assert_close(heads.pick(head)(features)[0], expected)


def test_cached_batches_are_all_images_in_a_new_order_each_epoch():
    features, labels = torch.arange(50.0)[:, None].repeat(1, 3), torch.arange(50)
    batches = cached_batches(features, labels, 16, seed=0)
    orders = []
    for epoch in (0, 1, 0):
        parts = list(batches(epoch))
        assert [len(part_labels) for _, part_labels in parts] == [16, 16, 16, 2]
        assert all(torch.equal(rows[:, 0].long(), part_labels) for rows, part_labels in parts)
        orders.append(torch.cat([part_labels for _, part_labels in parts]).tolist())
    assert sorted(orders[0]) == list(range(50))
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    other = cached_batches(features, labels, 50, seed=1)
    assert next(other(0))[1].tolist() not in (orders[0], orders[1])


def rates_of(protocol, architecture="resnet18"):
    return [linear_learning_rate(protocol, architecture, epoch) for epoch in range(protocol.epochs)]


def torchs_rates(scheduler, protocol, **options):
    """The learning rate of every epoch by a scheduler of torch's."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=protocol.lr)
    schedule = scheduler(optimizer, **options)
    rates = []
    for _ in range(protocol.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("name", ["linear-moco", "linear-seed", "linear-moco-small"])
def test_steps_are_those_of_torchs_scheduler(name):
    protocol = PROTOCOLS[name]
    expected = torchs_rates(torch.optim.lr_scheduler.MultiStepLR, protocol, milestones=[60, 80], gamma=0.1)
    assert rates_of(protocol) == pytest.approx(expected, rel=1e-9)
    assert [round(protocol.lr / rate) for rate in rates_of(protocol)] == [1] * 60 + [10] * 20 + [100] * 20


def test_without_a_schedule_the_rate_is_constant():
    assert rates_of(TRANSFER_PROTOCOLS["linear"]) == [3.0] * 200
    assert rates_of(TRANSFER_PROTOCOLS["linear"], "efficientnet_b0") == [3.0] * 200


def test_a_cosine_ends_at_the_final_rate():
    protocol = PROTOCOLS["linear-bingo"]
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR
    expected = torchs_rates(scheduler, protocol, T_max=120, eta_min=0.01)
    assert rates_of(protocol) == pytest.approx(expected, rel=1e-6)
    closed = [0.01 + (30 - 0.01) * (1 + math.cos(math.pi * epoch / 120)) / 2 for epoch in range(121)]
    assert rates_of(protocol) == pytest.approx(closed[:120], rel=1e-9)
    assert linear_learning_rate(protocol, "resnet18", 0) == 30
    assert linear_learning_rate(protocol, "resnet18", 120) == pytest.approx(0.01, rel=1e-9)


@pytest.mark.parametrize("architecture", ["efficientnet_b0", "timm/efficientnet_b1", "timm/tf_efficientnetv2_s"])
def test_efficientnets_have_a_rate_of_their_own_where_the_protocol_gives_one(architecture):
    protocol = PROTOCOLS["linear-bingo"]
    assert linear_learning_rate(protocol, architecture, 0) == 3
    assert linear_learning_rate(protocol, architecture, 120) == pytest.approx(0.001, rel=1e-9)
    tenth = [rate / 10 for rate in rates_of(protocol)]
    assert rates_of(protocol, architecture) == pytest.approx(tenth, rel=1e-9)
    assert rates_of(PROTOCOLS["linear-moco"], architecture) == rates_of(PROTOCOLS["linear-moco"])


@pytest.mark.parametrize("architecture", ["resnet50", "mobilenet_v3_large", "timm/vit_tiny_patch16_224"])
def test_other_networks_have_the_common_rate(architecture):
    assert linear_learning_rate(PROTOCOLS["linear-bingo"], architecture, 0) == 30


def test_steps_on_a_rate_of_its_own_and_to_a_final_one():
    protocol = Linear(4, 8, 2.0, 0.0, Steps(milestones=[1, 3], factor=0.1), "", final_lr=0.5, efficientnet_lr=0.2)
    assert rates_of(protocol) == pytest.approx([2.0, 0.65, 0.65, 0.515])
    assert rates_of(protocol, "efficientnet_b0") == pytest.approx([0.2, 0.065, 0.065, 0.0515])
    assert rates_of(replace(protocol, schedule=None), "efficientnet_b0") == [0.2] * 4


def test_standardising_is_that_of_scikit_learn_but_for_the_sample_variance(data):
    features, _ = data
    train, val = features[:30] * torch.linspace(0.1, 50, DIM) + 4, features[30:]
    standardise = standardiser(train)
    scaler = StandardScaler().fit(train.double().numpy())
    for part in (train, val):
        # scikit-learn divides by N under the root, this by N - 1.
        expected = scaler.transform(part.double().numpy()) * np.sqrt(29 / 30)
        np.testing.assert_allclose(standardise(part), expected, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7.7, 1000.3])
def test_a_column_that_never_varies_is_only_shifted(value):
    # 1000 values of 0.1 have a float32 mean beside 0.1, so a deviation that is not zero.
    features = torch.full((1000, 1), value)
    standardise = standardiser(features)
    assert standardise(features).eq(0).all()
    assert float(standardise(torch.tensor([[value + 2]]))) == pytest.approx(2, abs=1e-3)


def test_accuracy_of_a_classifier_is_that_of_its_scores(data):
    features, labels = data
    torch.manual_seed(0)
    heads = LinearHeads(torch.randn(1, CLASSES, DIM), torch.randn(1, CLASSES))
    scores = features.numpy() @ heads.weight[0].numpy().T + heads.bias[0].numpy()
    expected = {f"top{k}": pytest.approx(100 * top_k_accuracy_score(labels, scores, k=k)) for k in (1, 5)}
    assert linear_accuracy(heads, features, labels) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_classifier_that_diverged_is_refused(data, value):
    heads = LinearHeads(torch.zeros(1, CLASSES, DIM), torch.zeros(1, CLASSES))
    heads.weight[0, 2, 3] = value
    with pytest.raises(BingoError, match="the linear classifier diverged"):
        linear_accuracy(heads, *data)
