import pytest
import torch

from bingo.evaluation.probe import Measurement
from bingo.stages import evaluation
from bingo.study.protocols import PROTOCOLS, TRANSFER_PROTOCOLS, Finetune, Knn, Linear, LinearSweep

FROZEN = [name for name, protocol in PROTOCOLS.items() if not isinstance(protocol, Finetune)]


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_backbone_is_left_as_it_was(name, shorten, measured, backbone, monkeypatch):
    loaded, load = [], evaluation.read_backbone
    monkeypatch.setattr(evaluation, "read_backbone", lambda *arguments: loaded.append(load(*arguments)) or loaded[-1])
    shorten(name)
    measured(name)
    ((network, _),) = loaded
    expected = backbone.state_dict()
    assert {"bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"} < expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    assert not any(part.training for part in network.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())


def train_mode(network):
    network.layer2[0].bn1.train()


def batch_statistics(network):
    network.train()(torch.randn(4, 3, 22, 22))
    network.eval()


def weight(network):
    network.conv1.weight.data[0, 0, 0, 0] += 1e-6


def running_mean(network):
    network.layer4[0].bn2.running_mean += 1e-6


def batch_count(network):
    network.bn1.num_batches_tracked += 1


@pytest.mark.parametrize("name", ["knn-1", "linear-moco", "linear-cached"])
@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        (train_mode, "left the backbone in training mode"),
        (batch_statistics, "changed the backbone"),
        (weight, "changed the backbone"),
        (running_mean, "changed the backbone"),
        (batch_count, "changed the backbone"),
    ],
)
def test_a_frozen_protocol_that_touches_the_backbone_gives_no_result(
    sabotage, message, name, measured, monkeypatch, tmp_path
):
    def evaluator(protocol, probe):
        sabotage(probe.backbone)
        return Measurement({"top1": 100.0})

    monkeypatch.setitem(evaluation._EVALUATORS, type(PROTOCOLS[name]), evaluator)
    with pytest.raises(AssertionError, match=f"protocol {name} {message}"):
        measured(name)
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_protocol_is_either_frozen_or_fine_tuned():
    kinds = {type(protocol) for protocol in [*PROTOCOLS.values(), *TRANSFER_PROTOCOLS.values()]}
    assert kinds == {Knn, Linear, LinearSweep, Finetune} == set(evaluation._EVALUATORS)
