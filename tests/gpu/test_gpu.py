"""What runs on a GPU, against what the CPU computes in float32."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from bingo.bags.groups import random_bags
from bingo.bags.knn import knn_bags
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.losses.info_nce import info_nce, queue_logsumexp
from bingo.models.backbone import build_backbone
from bingo.models.batch_norm_folding import fold_batch_norm
from bingo.models.checkpoint import TeacherNetwork
from bingo.models.fused import FusedBlock
from bingo.models.head import mlp_head
from bingo.study.images import DemoData, FolderData
from bingo.study.jobs import DataJob
from bingo.study.method import View
from bingo.study.sections import Backbone, Preprocessing
from bingo.training.batches import TrainingBatches
from bingo.training.device import pick_device
from bingo.training.embed import embed
from bingo.training.loop import seed_step, train
from bingo.training.model import TrainingModel
from bingo.training.state import TrainingState
from bingo.training.teacher import OnlineTeacher, to_device
from bingo.training.train_method import MethodTask
from bingo.views.recipes import RECIPES
from tests.methods.literal import METHODS, settings_of, step_input
from tests.stage import run_stage
from tests.training.conftest import stop_in

if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)

CPU, GPU = torch.device("cpu"), pick_device()
VIEWS = {"query": View("anchor", 0), "key": View("anchor", 1)}
SMALL, PHOTO = Preprocessing(size=24, resize=24), Preprocessing(size=96, resize=96)
TRAINING = {"epochs": 200, "batch_size": 16, "lr": 0.03, "views": "cifar", "precision": "float32"}


class Noise:
    """A listing's images of noise, in memory."""

    def __init__(self, listing):
        self.listing = listing
        self.pixels = torch.randint(256, (len(listing), 3, 24, 24), generator=torch.Generator().manual_seed(0)).byte()

    def fetch(self, index):
        return self.pixels[torch.from_numpy(index)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "train").mkdir()
    for number in range(48):
        coarse = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        photo = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        photo.save(folder / "train" / f"{number:02d}.jpg", quality=90)
    data = FolderData(source="folder", train=str(folder / "train"))
    run_stage(DataJob, threads=4, split="train", data=data, output=folder / "listing.h5")
    return open_images(read_listing(folder / "listing.h5", "train"))


@pytest.fixture(scope="module")
def noise(photos):
    return Noise(replace(photos.listing, size=np.full((48, 2), 24)))


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(1)
    backbone = build_backbone(Backbone(architecture="resnet18", stem="small", width=1 / 16))
    backbone(1.5 * torch.randn(16, 3, 24, 24) + 0.5)  # so that batch-norm's statistics are not those of the start
    head = mlp_head(backbone.dim, [24, 12])
    return TeacherNetwork(backbone.eval().requires_grad_(False), head.eval().requires_grad_(False), "digest", {})


@pytest.fixture
def build_model(teacher):
    """Return a function from a method and a device to its model, always with the same weights."""

    def build(name, device):
        torch.manual_seed(0)
        method = settings_of(name, training=TRAINING)
        frozen = replace(
            teacher, backbone=copy.deepcopy(teacher.backbone).to(device), head=copy.deepcopy(teacher.head).to(device)
        )
        return TrainingModel(method, None if name == "moco" else OnlineTeacher(frozen, "eval")).to(device).train()

    return build


def batches(images, views, preprocessing, recipe="paper", bags=None):
    return TrainingBatches(images, views, RECIPES[recipe], preprocessing, 16, 0, bags)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("source", "preprocessing"), [("noise", SMALL), ("photos", PHOTO)])
def test_views_are_those_of_the_cpu(source, preprocessing, workers, request):
    data = batches(request.getfixturevalue(source), VIEWS, preprocessing)
    for batch in data.batches(0, 1, workers):
        expected, found = data.render(batch.views, CPU), data.render(batch.views, GPU)
        for name in VIEWS:
            assert found[name].device.type == "cuda"
            torch.testing.assert_close(found[name].cpu(), expected[name], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("batch", "size"), [(8, 100), (256, 65_536), (2048, 65_536)])
def test_loss_and_its_gradient_are_those_of_all_logits_at_once(batch, size):
    torch.manual_seed(0)
    query, key, queue = (F.normalize(torch.randn(n, 128), dim=1).to(GPU) for n in (batch, batch, size))
    query.requires_grad_()
    loss = info_nce(query, key, queue_logsumexp(query, queue, 0.2), 0.2)
    [gradient] = torch.autograd.grad(loss, query)
    exact = query.detach().double().requires_grad_()
    logits = torch.cat([(exact * key.double()).sum(1, keepdim=True), exact @ queue.double().T], 1) / 0.2
    expected = F.cross_entropy(logits, torch.zeros(batch, dtype=torch.long, device=GPU))
    [expected_gradient] = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    scale = float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=1e-5 * scale)


def take_step(task, epoch, loss):
    """Take one step as the training loop does."""
    for group, lr in zip(task.optimizer.param_groups, task.learning_rates(epoch, 0), strict=True):
        group["lr"] = lr
    task.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    task.optimizer.step()
    task.after_step()


@pytest.mark.parametrize("name", METHODS)
def test_first_steps_of_training_are_those_of_the_cpu(name, build_model, noise):
    losses = []
    for device in (CPU, GPU):
        model = build_model(name, device)
        data = batches(noise, model.method.views(), SMALL, bags=random_bags(48, 5, 0))
        task = MethodTask(model, data, model.method.training, device)
        losses.append([])
        for number in range(3):
            batch = step_input(model, number, epoch=2)
            batch = replace(batch, images={view: images.to(device) for view, images in batch.images.items()})
            values = model(batch, torch.float32)
            take_step(task, 2, values["loss"])
            losses[-1].append({term: float(value.detach()) for term, value in values.items()})
    for expected, found in zip(*losses, strict=True):
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_never_waits_for_the_gpu(name, precision, build_model, noise):
    model = build_model(name, GPU)
    training = model.method.training.model_copy(update={"precision": precision})
    data = batches(noise, model.method.views(), SMALL, bags=random_bags(48, 5, 0))

    task = MethodTask(model, data, training, GPU)

    def steps(epoch):
        for batch in data.batches(epoch, epoch + 1, 0):
            seed_step(0, epoch, batch.step)
            take_step(task, epoch, task.loss(model, batch)["loss"])

    steps(0)  # folds the teacher, and lets libraries set themselves up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps(1)
        steps(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_stored_outputs_reach_the_gpu_without_waiting():
    outputs = np.random.default_rng(0).standard_normal((300, 128)).astype(np.float16)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = to_device(outputs, GPU)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found.cpu(), torch.from_numpy(outputs).float())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_on_the_gpu_goes_on_where_it_was_stopped(workers, build_model, noise, tmp_path):
    def run(folder, stop):
        model = build_model("moco", GPU)
        if stop:
            stop_in(5)(model)
        state = TrainingState(tmp_path / folder / "state.pt", "same")
        data = batches(noise, model.method.views(), SMALL, "cifar")
        with state.exclusively():
            training = model.method.training.model_copy(update={"epochs": 2})
            return model, train(MethodTask(model, data, training, GPU), state, workers, "test")

    whole, rows = run("whole", stop=False)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", stop=True)
    resumed, resumed_rows = run("stopped", stop=False)
    assert [row["loss"] for row in resumed_rows] == pytest.approx([row["loss"] for row in rows], rel=1e-3)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("architecture", "width", "fused"), [("resnet18", 1 / 16, 5), ("resnet18", 0.5, 8), ("resnet50", 0.25, 16)]
)
def test_a_folded_network_computes_the_same_in_fused_blocks(architecture, width, fused):
    torch.manual_seed(0)
    network = build_backbone(Backbone(architecture=architecture, width=width)).to(GPU)
    images = torch.randn(8, 3, 64, 64, device=GPU).contiguous(memory_format=torch.channels_last)
    for _ in range(5):  # so that batch-norm's statistics are not those of the start
        network(images)
    network.eval()
    fast = fold_batch_norm(network)
    assert sum(isinstance(module, FusedBlock) for module in fast.modules()) == fused
    with torch.inference_mode():
        expected, found = network(images), fast(images)
        with torch.autocast("cuda", torch.bfloat16):
            rounded, rounded_fast = network(images), fast(images)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert rounded_fast.dtype == torch.bfloat16
    error, error_fast = ((each.float() - expected).square().mean().sqrt() for each in (rounded, rounded_fast))
    assert error_fast <= 1.5 * error


def test_embeddings_are_those_of_the_cpu(photos):
    torch.manual_seed(0)
    network = build_backbone(Backbone(architecture="resnet18")).eval()
    expected, found = (
        torch.cat(list(embed(network.to(device), photos, PHOTO, device, 2, "bilinear"))) for device in (CPU, GPU)
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("workers", [0, 2])
def test_grey_images_are_embedded_and_seen(workers, tmp_path):
    run_stage(DataJob, split="train", data=DemoData(source="demo", max_train=48), output=tmp_path / "l.h5")
    grey = open_images(read_listing(tmp_path / "l.h5", "train"))
    preprocessing = Preprocessing(size=28, resize=28)
    [expected] = embed(nn.Flatten(), grey, preprocessing, CPU, 0, "bilinear")
    [found] = embed(nn.Flatten(), grey, preprocessing, GPU, workers, "bilinear")
    torch.testing.assert_close(found, expected)
    data = batches(grey, VIEWS, preprocessing, "small")
    for batch in data.batches(0, 1, workers):
        torch.testing.assert_close(
            data.render(batch.views, GPU)["key"].cpu(), data.render(batch.views, CPU)["key"], rtol=0, atol=1e-3
        )


def test_jpegs_decoded_by_nvjpeg_are_about_those_of_the_cpu(photos):
    on_gpu = PHOTO.model_copy(update={"decoder": "nvjpeg"})
    network = nn.Flatten()
    expected, found = (
        torch.cat(list(embed(network, photos, preprocessing, GPU, 0, "bilinear"))) for preprocessing in (PHOTO, on_gpu)
    )
    assert float((found - expected).abs().mean()) < 2 / 255 / 0.22  # two grey levels, after normalisation


class TestFaiss:
    """With faiss's own searches on the GPU."""

    @pytest.fixture(autouse=True)
    def faiss(self):
        faiss = pytest.importorskip("faiss")
        if not faiss.get_num_gpus():
            pytest.skip("faiss finds no GPU")
        return faiss

    @pytest.fixture
    def features(self):
        return np.random.default_rng(0).standard_normal((40_000, 64), dtype=np.float32)

    def test_neighbours_are_those_of_a_sorted_product(self, features):
        from bingo.bags.neighbours import nearest_neighbours

        queries = features[:2000]
        [(rows, similarity, index)] = nearest_neighbours(queries, features, 6)
        assert rows == slice(0, 2000)
        exact = torch.from_numpy(queries).to(GPU).double() @ torch.from_numpy(features).to(GPU).double().T
        values, places = exact.topk(6)
        np.testing.assert_allclose(similarity, values.cpu().numpy(), rtol=1e-5, atol=1e-4)
        assert (index == places.cpu().numpy()).mean() > 0.9999  # near ties may change places

    def test_clusters_are_about_those_of_the_cpu(self, features, faiss, monkeypatch):
        from bingo.bags.kmeans import kmeans_bags

        blobs = np.repeat(features[:50], 100, axis=0) + features[:5000] / 4
        on_gpu = kmeans_bags(blobs, 50, 20, 0)
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
        on_cpu = kmeans_bags(blobs, 50, 20, 0)
        assert on_gpu.attributes["mean_similarity"] == pytest.approx(on_cpu.attributes["mean_similarity"], rel=1e-3)

    def test_an_inverted_file_finds_nearly_all(self, features):
        from bingo.study.bags import IvfSearch

        search = IvfSearch.model_validate({"ivf": {"lists": 50, "probes": 50}})  # all lists: only float16 rounds
        bags = knn_bags(features[:5000], 5, search)
        assert bags.attributes["recall"] > 0.99
