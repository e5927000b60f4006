"""Three views of each image, beside torchvision's transforms applied image by image."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.measure import BenchmarkRow, device_name, side_by_side
from benchmarks.photos import write_photos
from bingo.data.decode import decode
from bingo.data.images import Images, open_images
from bingo.data.listing import Listing, read_listing
from bingo.philox import Stream, uniform
from bingo.study.images import FolderData
from bingo.study.jobs import DataJob
from bingo.study.method import View
from bingo.study.sections import NetworkInput
from bingo.training.batches import TrainingBatches
from bingo.training.device import pick_device
from bingo.views.recipes import RECIPES
from tests.stage import run_stage

VIEWS = {"anchor": View("anchor", 0), "positive": View("anchor", 1), "target": View("anchor", 0, teacher=True)}
SMALL, PHOTO = NetworkInput(size=32), NetworkInput(size=224)
BATCH = 256
CPU = torch.device("cpu")


class Blur:
    """MoCo-v2's Gaussian blur."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur with a random standard deviation."""
        sigma = np.random.uniform(0.1, 2.0)
        return image.filter(ImageFilter.GaussianBlur(radius=sigma))


class ThreeViews:
    """MoCo-v2's transforms (main_moco.py --aug-plus), three times."""

    def __init__(self, preprocessing: NetworkInput) -> None:
        """Take size and normalisation from ``preprocessing``."""
        self.view = transforms.Compose(
            [
                transforms.RandomResizedCrop(preprocessing.size, scale=(0.2, 1.0)),
                transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                transforms.RandomApply([Blur()], p=0.5),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(preprocessing.mean, preprocessing.std),
            ]
        )

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """Return the views."""
        return [self.view(image) for _ in range(3)]


class InMemory:
    """Images held in memory, for `TrainingBatches`."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        """Hold ``pixels`` (N, H, W, 3)."""
        count = len(pixels)
        size = np.tile(np.array(pixels.shape[1:3]), (count, 1))
        self.listing = Listing("cifar10", Path(), "train", np.zeros(count, np.int64), size, ["0"], "", "")
        self.pixels = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """Return the images at ``index``."""
        return self.pixels[torch.from_numpy(index)]


class OneByOne(Dataset[Any]):
    """The same images for a DataLoader."""

    def __init__(self, pixels: NDArray[np.uint8], transform: ThreeViews) -> None:
        """Hold ``pixels`` (N, H, W, 3)."""
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        """Return N."""
        return len(self.pixels)

    def __getitem__(self, i: int) -> list[Tensor]:
        """Return views of image ``i``."""
        return self.transform(Image.fromarray(self.pixels[i]))


def small_images(count: int) -> NDArray[np.uint8]:
    """Return images of 32 px: uint8 (count, 32, 32, 3)."""
    coarse = (255 * uniform(0, Stream.SHEET, range(count), 0, 0, 8 * 8 * 3)).reshape(count, 8, 8, 3)
    return coarse.astype(np.uint8).repeat(4, 1).repeat(4, 2)


def batches_of(images: Images, preprocessing: NetworkInput, batch: int) -> TrainingBatches:
    """Describe batches of three views of all images."""
    return TrainingBatches(images, VIEWS, RECIPES["paper"], preprocessing, batch, 0, None, drop_last=False)


def ours(
    images: Images, preprocessing: NetworkInput, workers: int, batch: int, device: torch.device
) -> Iterator[Mapping[str, Tensor]]:
    """Yield batches of three views from this project's loader, rendered on ``device``."""
    data = batches_of(images, preprocessing, batch)
    for batch_views in data.batches(0, 1, workers):
        yield data.render(batch_views.views, device)


def reference(dataset: Dataset[Any], workers: int, batch: int) -> Iterator[list[Tensor]]:
    """Yield batches of three views by torchvision's transforms."""
    for loaded in DataLoader(dataset, batch_size=batch, shuffle=True, num_workers=workers):
        yield loaded[0] if isinstance(dataset, ImageFolder) else loaded  # without the labels


def drain(batches: Iterator[Any]) -> None:
    """Compute all batches."""
    for _ in batches:
        pass


def listed(folder: Path) -> Listing:
    """List the images below ``folder``."""
    path = folder / "listing.h5"
    data = FolderData(source="folder", train=str(folder / "train"))
    run_stage(DataJob, split="train", data=data, output=path)
    return read_listing(path, "train")


def rows() -> Iterator[BenchmarkRow]:
    """Measure views of small images in memory (GPU or all cores) and of photographs (per core).

    `views-jpeg-crops` is the loader's part when a GPU renders the views: decoding and cropping.
    """
    count, device = 10_000, pick_device()
    pixels = small_images(count)
    images, one_by_one = InMemory(pixels), OneByOne(pixels, ThreeViews(SMALL))
    times = side_by_side(
        {
            "ours": lambda: drain(ours(images, SMALL, 0, BATCH, device)),
            "reference": lambda: drain(reference(one_by_one, torch.get_num_threads(), BATCH)),
        },
        3,
        device,
    )
    yield times.row("views-small", "images/s", device_name(device), count, "ratio >= 20")

    threads, count = torch.get_num_threads(), 128
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_photos(folder / "train", count)
            photos = open_images(listed(folder))
            from_folder = ImageFolder(str(folder / "train"), ThreeViews(PHOTO))
            contents = [path.read_bytes() for path in sorted((folder / "train" / "photos").iterdir())]
            times = side_by_side(
                {
                    "ours": lambda: drain(ours(photos, PHOTO, 0, 64, CPU)),
                    "crops": lambda: drain(batches_of(photos, PHOTO, 64).batches(0, 1, 0)),
                    "reference": lambda: drain(reference(from_folder, 0, 64)),
                    "ceiling": lambda: [decode(content) for content in contents],
                },
                repeats=5,
            )
            whole = times.pick(ours="ours", reference="reference", ceiling="ceiling")
            goal = "ratio >= 3; the ceiling is decoding alone"
            yield whole.row("views-jpeg", "images/s", device_name(CPU), count, goal)
            crops = times.pick(ours="crops", ceiling="ceiling")
            yield crops.row("views-jpeg-crops", "images/s", device_name(CPU), count)
    finally:
        torch.set_num_threads(threads)
