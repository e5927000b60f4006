import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from sklearn.preprocessing import StandardScaler

from bingo.errors import BingoError
from bingo.evaluation.linear import cached_batches, linear_accuracy, standardiser, train_linear
from bingo.evaluation.protocols import Linear

PROTOCOL = Linear(
    epochs=6,
    batch_size=16,
    lr=0.5,
    weight_decay=0.01,
    milestones=(2, 5),
    decay=0.1,
    augment=False,
    standardise=False,
    source="",
)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=50)
    features = rng.normal(size=(7, 9))[labels] + rng.normal(size=(50, 9))
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


def literal_sgd(batches, weight, bias, rates, weight_decay):
    """Softmax regression by SGD with momentum 0.9 in float64, gradient by hand."""
    speed_w, speed_b = np.zeros_like(weight), np.zeros_like(bias)
    for epoch, lr in enumerate(rates):
        for features, labels in batches(epoch):
            x, y = features.double().numpy(), labels.numpy()
            scores = x @ weight.T + bias
            odds = np.exp(scores - scores.max(1, keepdims=True))
            error = odds / odds.sum(1, keepdims=True)
            error[np.arange(len(y)), y] -= 1
            speed_w = 0.9 * speed_w + error.T @ x / len(y) + weight_decay * weight
            speed_b = 0.9 * speed_b + error.mean(0) + weight_decay * bias
            weight, bias = weight - lr * speed_w, bias - lr * speed_b
    return weight, bias


def test_training_is_sgd_with_momentum_and_milestones(data):
    batches = cached_batches(*data, PROTOCOL.batch_size, seed=3)
    found = train_linear(PROTOCOL, batches, dim=9, classes=7, seed=3)
    start = torch.empty(7, 9).normal_(std=0.01, generator=torch.Generator().manual_seed(3)).double().numpy()
    rates = [0.5, 0.5, 0.05, 0.05, 0.05, 0.005]
    weight, bias = literal_sgd(batches, start, np.zeros(7), rates, 0.01)
    np.testing.assert_allclose(found.weight.detach(), weight, atol=1e-5)
    np.testing.assert_allclose(found.bias.detach(), bias, atol=1e-5)
    assert np.abs(weight).max() > 0.3  # far from where it started


def test_training_ignores_and_keeps_the_global_generator(data):
    batches = cached_batches(*data, 16, seed=0)
    torch.manual_seed(1)
    first = train_linear(PROTOCOL, batches, 9, 7, seed=0)
    torch.manual_seed(2)
    second = train_linear(PROTOCOL, batches, 9, 7, seed=0)
    assert torch.equal(first.weight, second.weight)


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


def test_a_classifier_that_diverges_is_refused(data):
    features, labels = data
    with pytest.raises(BingoError, match="diverged"):
        train_linear(PROTOCOL, cached_batches(features * 1e30, labels, 16, seed=0), 9, 7, seed=0)


def test_standardising_is_that_of_scikit_learn_but_for_the_sample_variance(data):
    features, _ = data
    train, val = features[:30] * torch.linspace(0.1, 50, 9) + 4, features[30:]
    standardise = standardiser(train)
    reference = StandardScaler().fit(train.double().numpy())
    for part in (train, val):
        # scikit-learn divides by N under the root, this by N - 1.
        expected = reference.transform(part.double().numpy()) * np.sqrt(29 / 30)
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
    classifier = torch.nn.Linear(9, 7)
    scores = features.numpy() @ classifier.weight.detach().numpy().T + classifier.bias.detach().numpy()
    expected = {f"top{k}": pytest.approx(100 * top_k_accuracy_score(labels, scores, k=k)) for k in (1, 5)}
    assert linear_accuracy(classifier, features, labels) == expected
