"""Where a study's images come from: the settings under `data` and `transfer`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bingo.study.sections import Preprocessing, StrictModel, setting_error

SOURCES = Literal["fashion-mnist", "cifar10", "cifar100", "stl10"]


class _ImageSetSection(StrictModel):
    max_train: int | None = Field(default=None, ge=1)
    """Use a fixed random sample of this many training images; null for all."""
    max_val: int | None = Field(default=None, ge=1)
    """Use a fixed random sample of this many validation images; null for all."""


class DemoSet(_ImageSetSection):
    """The 10,000 training and 5,000 validation images of Fashion-MNIST that ship with the package."""

    source: Literal["demo"]
    """Kind of dataset."""


class TorchvisionSet(_ImageSetSection):
    """A torchvision dataset. It is downloaded if it is not in `root`."""

    source: SOURCES
    """Kind of dataset."""
    root: str = "datasets"
    """Folder of the dataset, or of its download."""


class FolderSet(_ImageSetSection):
    """A folder of images, with class folders or flat without labels."""

    source: Literal["folder"]
    """Kind of dataset."""
    train: str
    """Folder of training images, searched recursively."""
    val: str | None = None
    """Folder of validation images; null if there is none."""
    # Excluded when unset, so that settings equal those from before this key existed.
    held_out: float | None = Field(default=None, gt=0, lt=1, exclude_if=lambda share: share is None)
    """Without `val`: approximate fraction of each class in `train` to use for validation instead of training. The
    images are chosen by file name, at least one from each class with two or more. null: use all images for training."""
    labels: Literal["auto", "folders", "none"] = "auto"
    """`folders`: the first folder level is the class; `none`: no labels; `auto`: `folders` if there are class folders,
    else `none`."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """What to do with an unreadable image: stop the data stage (`fail`), or leave it out and count it (`skip`)."""

    @model_validator(mode="after")
    def _held_out_by_class(self) -> Self:
        if self.held_out is not None and self.val is not None:
            raise setting_error("held_out and val both define validation images; remove one")
        if self.held_out is not None and self.labels == "none":
            raise setting_error("held_out needs class folders, but labels is none; remove one")
        return self


class Pack(StrictModel):
    """Store the images of a folder in one file, for file systems that are slow with many small files."""

    shorter_side: int | None = Field(default=None, ge=8)
    """Resize larger images to this shorter side, in pixels, and encode them as JPEG; null copies each file
    unchanged."""
    quality: int = Field(default=95, ge=1, le=100)
    """JPEG quality of resized images."""


class CocoSet(StrictModel):
    """Images with boxes and masks in COCO format, for detection."""

    source: Literal["coco"]
    """Kind of dataset."""
    train: str
    """Folder of training images."""
    train_annotations: str
    """JSON file of the training annotations."""
    val: str
    """Folder of validation images."""
    val_annotations: str
    """JSON file of the validation annotations."""


class _Data(StrictModel):
    preprocessing: Preprocessing = Preprocessing()
    """How images become network input."""
    workers: int = Field(default=0, ge=0)
    """Loader processes per job; 0 loads in the training process. Does not change results."""


class DemoData(DemoSet, _Data):
    """The 10,000 training and 5,000 validation images of Fashion-MNIST that ship with the package."""


class TorchvisionData(TorchvisionSet, _Data):
    """A torchvision dataset. It is downloaded if it is not in `root`."""


class FolderData(FolderSet, _Data):
    """A folder of images, with class folders or flat without labels."""

    pack: Pack | None = None
    """Copy the images to results/<study>/data/{train,val}.h5, which all stages then read; null reads the folder
    directly. Datasets under `transfer` are not packed."""
    label_lists: dict[Literal["semi-1", "semi-10"], str] = Field(default={})
    """Text file for each semi-supervised protocol that lists the images whose labels are used, one per line. Without a
    file, the same fraction of each class is sampled at random. For ImageNet, use SimCLR's lists
    (google-research/simclr, imagenet_subsets/)."""


ImageSet = DemoSet | TorchvisionSet | FolderSet
Data = Annotated[DemoData | TorchvisionData | FolderData, Field(discriminator="source")]
Target = Annotated[ImageSet | CocoSet, Field(discriminator="source")]
