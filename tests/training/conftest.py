import itertools

import pytest
import torch

from bingo.bags.knn import knn_bags
from bingo.methods.bingo import Bingo
from bingo.methods.disco import Disco
from bingo.methods.moco import Moco
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import TeacherNetwork
from bingo.models.head import mlp_head
from bingo.study.sections import Backbone, Preprocessing, Training
from bingo.training.batches import TrainingBatches
from bingo.training.model import TrainingModel
from bingo.training.teacher import OnlineTeacher
from bingo.views.recipes import RECIPES
from tests.data.conftest import list_images as list_images
from tests.methods.conftest import teacher as teacher
from tests.noise import Noise

torch.set_num_threads(1)

CPU = torch.device("cpu")
COUNT, BATCH = 48, 16
STEPS = COUNT // BATCH  # of an epoch


@pytest.fixture(scope="session")
def images():
    return Noise(COUNT, 12)


@pytest.fixture(scope="session")
def training():
    return Training(epochs=3, batch_size=BATCH, lr=0.1, views="small", precision="float32")


@pytest.fixture(scope="session")
def build(training):
    """Return a function from a method's name and the seed of its initial weights to the model."""
    common = {
        "backbone": {"architecture": "resnet10", "stem": "small", "width": 0.0625},
        "training": training.model_dump(),
        "queue_size": 40,
    }
    bingo = common | {"method": "bingo", "bags": "knn", "head": {"hidden": 16}}
    methods = {
        "moco": Moco.model_validate(common | {"method": "moco", "head": {"dim": 8}}),
        "bingo": Bingo.model_validate(bingo),
        "official": Bingo.model_validate(bingo | {"objective": "official", "inter_free_epochs": 1}),
        "disco": Disco.model_validate(common | {"method": "disco", "head": {"hidden": 16}}),
    }

    def build(name, seed):
        torch.manual_seed(seed)
        return TrainingModel(methods[name], None if name == "moco" else OnlineTeacher(make_teacher(), "eval"))

    return build


def make_teacher():
    state = torch.get_rng_state()
    torch.manual_seed(5)
    backbone = build_backbone(Backbone(architecture="resnet10", stem="small", width=1 / 32))
    head = mlp_head(backbone.dim, [8, 8])
    torch.set_rng_state(state)
    return TeacherNetwork(backbone.eval().requires_grad_(False), head.eval().requires_grad_(False), "digest", {})


@pytest.fixture(scope="session")
def batches(images, training):
    """Return a function from a model to the batches that it trains on."""
    features = images.pixels.flatten(1).float().numpy() - 127.5

    def batches(model):
        preprocessing = Preprocessing(size=12, resize=12)
        bags = knn_bags(features.copy(), 5)
        recipe = RECIPES[training.views]
        return TrainingBatches(images, model.method.views(), recipe, preprocessing, training.batch_size, 11, bags)

    return batches


def stop_in(step):
    """Return a function that lets a model's training be interrupted in a step, counted from 1 in this process."""

    def prepare(model):
        def stop(done):
            if done == step:
                raise KeyboardInterrupt

        at_steps(model, stop)

    return prepare


def at_steps(model, act):
    """Call ``act`` with the number of each step, counted from 1, before the model finishes it."""
    after_step, numbers = model.after_step, itertools.count(1)
    model.after_step = lambda: act(next(numbers)) or after_step()


def same_bytes(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert list(first) == list(second)
    return all(first[name].numpy().tobytes() == second[name].numpy().tobytes() for name in first)
