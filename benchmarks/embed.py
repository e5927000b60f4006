"""The embeddings stage on photographs, from JPEG to HDF5, beside the bare forward pass and bare decoding."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import torch
from torch import nn

from benchmarks.measure import BenchmarkRow, device_name, side_by_side
from benchmarks.photos import write_photos
from benchmarks.views import listed
from bingo.data.decode import decode
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import load_teacher, write_teacher
from bingo.study.jobs import EmbeddingsJob
from bingo.study.sections import Backbone, Preprocessing
from bingo.training.device import pick_device
from bingo.training.embed import CPU_FORWARD_BATCH, EMBED_BATCH
from tests.stage import run_stage

PHOTOS, LINKS_ON_GPU = 128, 64
"""Hard links per photograph on a GPU. Without them, the images run out before the loader workers have started."""
RESNET18 = Backbone(architecture="resnet18")


def random_teacher(path: Path, spec: Backbone) -> Path:
    """Write a teacher of random weights."""
    torch.manual_seed(0)
    write_teacher(path, spec, build_backbone(spec).state_dict(), {}, {"method": "moco"})
    return path


@torch.inference_mode()
def forward(network: nn.Module, pixels: torch.Tensor, count: int) -> None:
    """Run a network on ``count`` images, in batches of ``len(pixels)``."""
    for start in range(0, count, len(pixels)):
        network(pixels[: count - start])


def rows() -> Iterator[BenchmarkRow]:
    """Measure ResNet-18 at 224 px on all cores.

    The ceiling is the slower of the bare network on random data and bare decoding, each with the whole machine. On a
    CPU both need the same cores, so the stage reaches the ceiling only by saving work.
    """
    device = pick_device()
    threads = torch.get_num_threads()
    on_gpu = device.type == "cuda"
    workers, batch = (threads, EMBED_BATCH) if on_gpu else (0, CPU_FORWARD_BATCH)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(threads) as decoders:
        folder = Path(name)
        write_photos(folder / "train", PHOTOS)
        photos = sorted((folder / "train" / "photos").iterdir())
        contents = [path.read_bytes() for path in photos]
        if on_gpu:
            for path, link in product(photos, range(1, LINKS_ON_GPU)):
                path.with_stem(f"{path.stem}-{link}").hardlink_to(path)
            contents *= LINKS_ON_GPU
        count = len(contents)
        listed(folder)
        teacher = random_teacher(folder / "teacher.safetensors", RESNET18)
        network = load_teacher(teacher, device).backbone
        pixels = torch.randn(batch, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
        files = {"listing": folder / "listing.h5", "teacher": teacher, "output": folder / "out.h5"}
        ours = partial(run_stage, EmbeddingsJob, device=device, workers=workers, preprocessing=Preprocessing(), **files)
        times = side_by_side(
            {
                "ours": ours,
                "forward": lambda: forward(network, pixels, count),
                "decode": lambda: list(decoders.map(decode, contents)),
            },
            repeats=3,
            device=device,
        ).times
        rates = {name: [count / second for second in seconds] for name, seconds in times.items()}
        ceilings = [min(both) for both in zip(rates["forward"], rates["decode"], strict=True)]
        fractions = [rate / ceiling for rate, ceiling in zip(rates["ours"], ceilings, strict=True)]
        row = BenchmarkRow(
            "embed-gpu" if on_gpu else "embed",
            "images/s",
            device_name(device),
            "fraction >= 0.9",
            median(rates["ours"]),
        )
        yield replace(row, ceiling=median(ceilings), fraction_of_ceiling=median(fractions), repeats=len(fractions))
    if not on_gpu:
        yield BenchmarkRow("embed-gpu", "images/s", "no GPU", "fraction >= 0.9")
