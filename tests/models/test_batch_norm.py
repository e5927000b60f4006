import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bingo.errors import BingoError
from bingo.models.batch_norm import synchronise_batch_norm, without_running_statistics


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 5),
        nn.Dropout(0.5),
        nn.BatchNorm1d(5, momentum=None),
    )
    for _ in range(3):
        network(3 * torch.randn(8, 3, 8, 8) + 1)
    return network.eval()


def modes(network):
    """What batch-norm and dropout would do next, and all that they remember."""
    layers = [module for module in network.modules() if not list(module.children())]
    flags = [(layer.training, getattr(layer, "track_running_stats", None)) for layer in layers]
    return flags, {name: value.clone() for name, value in network.state_dict().items()}


def same(first, second):
    return first[0] == second[0] and all(torch.equal(value, second[1][name]) for name, value in first[1].items())


def literal(network, images):
    """Batch-norm by hand: each batch's own mean and biased variance; dropout as in eval mode."""
    convolution, first, _, _, linear, _, second = network
    values = convolution(images)
    mean, variance = values.mean((0, 2, 3), keepdim=True), values.var((0, 2, 3), unbiased=False, keepdim=True)
    values = (values - mean) / (variance + first.eps).sqrt()
    values = F.relu(values * first.weight[:, None, None] + first.bias[:, None, None])
    values = linear(values.flatten(1))
    values = (values - values.mean(0)) / (values.var(0, unbiased=False) + second.eps).sqrt()
    return values * second.weight + second.bias


@torch.no_grad()
def test_batch_statistics_are_used_and_running_ones_neither_read_nor_changed(network):
    images = torch.randn(6, 3, 8, 8)
    before = modes(network)
    with without_running_statistics(network):
        found = network(images)
    assert same(modes(network), before)
    torch.testing.assert_close(found, literal(network, images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, network(images), atol=0.1)  # which uses the running ones again
    for value in (network[1].running_mean, network[6].running_var):
        value.fill_(torch.nan)
    with without_running_statistics(network):
        torch.testing.assert_close(network(images), found)


def test_gradients_flow_as_in_training(network):
    images = torch.randn(6, 3, 8, 8)
    network[5].p = 0.0
    other = copy.deepcopy(network).train()
    with without_running_statistics(network):
        network(images).square().sum().backward()
    other(images).square().sum().backward()
    for (name, ours), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_that_each_layer_had_comes_back_even_after_an_exception(network, training):
    network.train(training)
    network[1].train(not training)
    before = modes(network)

    def fail():
        with without_running_statistics(network):
            assert network[1].training
            assert network[6].training
            assert network[5].training == training  # dropout stays as it is
            network(torch.randn(6, 3, 8, 8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert same(modes(network), before)


def test_torchs_synchronised_layers_replace_batch_norm_on_gpus(network, monkeypatch):
    expected = network.state_dict()
    network[1].requires_grad_(False)
    monkeypatch.setattr(nn.Module, "to", lambda module, *_: module)  # there may be no GPU
    synchronise_batch_norm(network, torch.device("cuda"))
    layers = [layer for layer in network if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert {type(layer) for layer in layers} == {nn.SyncBatchNorm}
    assert [layer.weight.requires_grad for layer in layers] == [False, True]
    found = network.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_layers_that_do_more_than_batch_norm_cannot_be_synchronised():
    network = nn.Sequential(type("BatchNormAct2d", (nn.BatchNorm2d,), {})(4))
    with pytest.raises(BingoError, match="BatchNormAct2d"):
        synchronise_batch_norm(network, torch.device("cuda"))


def test_batch_norm_is_not_synchronised_on_cpus(network):
    with pytest.raises(BingoError, match=r"^training\.sync_batch_norm: "):
        synchronise_batch_norm(network, torch.device("cpu"))
