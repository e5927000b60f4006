import pytest
import torch

from bingo.study.images import DemoData
from bingo.data.listing import write_listing
from bingo.stages.embeddings import make_embeddings
from bingo.study.jobs import DataJob, EmbeddingsJob
from bingo.models.backbone import build_backbone
from bingo.models.head import mlp_head
from bingo.study.sections import Backbone, Preprocessing
from bingo.artifacts.tensors import write_tensors

torch.set_num_threads(1)

PREPROCESSING = Preprocessing(size=16, resize=16)


@pytest.fixture(scope="session")
def make_listing(tmp_path_factory):
    """From a number of training images to the listing of so many demo images."""
    folder = tmp_path_factory.mktemp("listings")

    def make(count):
        path = folder / f"{count}.h5"
        if not path.exists():
            write_listing(
                DataJob(version=1, split="train", data=DemoData(source="demo", max_train=count)), "data", None, path, 1
            )
        return path

    return make


@pytest.fixture(scope="session")
def make_teacher(tmp_path_factory):
    """From a seed to a teacher of random weights."""
    folder = tmp_path_factory.mktemp("teachers")
    spec = Backbone(architecture="resnet10", stem="small", width=1 / 16)

    def make(seed):
        path = folder / f"{seed}.safetensors"
        torch.manual_seed(seed)
        parts = {"backbone": build_backbone(spec), "head": mlp_head(32, [16, 8])}
        tensors = {f"{part}.{name}": value for part, net in parts.items() for name, value in net.state_dict().items()}
        write_tensors(path, tensors, {"backbone": spec.model_dump(), "method": "moco"})
        return path

    return make


@pytest.fixture(scope="session")
def inputs(make_listing, make_teacher, tmp_path_factory):
    """Listing, teacher and embeddings that belong together."""
    listing, teacher = make_listing(40), make_teacher(0)
    embeddings = tmp_path_factory.mktemp("embeddings") / "teacher.h5"
    job = EmbeddingsJob(version=1, preprocessing=PREPROCESSING)
    make_embeddings(job, listing, teacher, embeddings, torch.device("cpu"), 0)
    return {"listing_path": listing, "teacher_path": teacher, "embeddings_path": embeddings}
