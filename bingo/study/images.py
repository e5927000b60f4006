"""Where a study's images come from: the keys of `data` and `transfer`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bingo.study.sections import Preprocessing, StrictModel, setting_error

SOURCES = Literal["fashion-mnist", "cifar10", "cifar100", "stl10"]


class _ImageSetSection(StrictModel):
    max_train: int | None = Field(default=None, ge=1)
    """Use only this many training images, drawn at random once; null for all."""
    max_val: int | None = Field(default=None, ge=1)
    """Use only this many validation images, drawn at random once; null for all."""


class DemoSet(_ImageSetSection):
    """The 10,000 + 5,000 Fashion-MNIST images that ship with the package."""

    source: Literal["demo"]
    """Where images come from."""


class TorchvisionSet(_ImageSetSection):
    """A set that torchvision knows, used where it lies, else downloaded."""

    source: SOURCES
    """Where images come from."""
    root: str = "datasets"
    """Folder that holds the set, or receives the download."""


class FolderSet(_ImageSetSection):
    """A folder of images: class folders, or a flat one without labels."""

    source: Literal["folder"]
    """Where images come from."""
    train: str
    """Folder of training images, searched recursively."""
    val: str | None = None
    """Folder of validation images; null where there is none."""
    # Left out where it is not used, as before there was such a key: listings and reports need not be made again.
    held_out: float | None = Field(default=None, gt=0, lt=1, exclude_if=lambda share: share is None)
    """Where there is no `val`: about what share of each class's images in `train` are validation images instead, drawn
    by their names, one at least of each class that has two; null to use all for training."""
    labels: Literal["auto", "folders", "none"] = "auto"
    """`folders`: the first folder level names the class; `none`: no labels; `auto`: folders if there are any."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """An unreadable image stops the data stage (`fail`), or is left out and counted (`skip`)."""

    @model_validator(mode="after")
    def _held_out_by_class(self) -> Self:
        if self.held_out is not None and self.val is not None:
            raise setting_error("held_out and val both name validation images; leave one out")
        if self.held_out is not None and self.labels == "none":
            raise setting_error("held_out needs class folders, but labels is none; leave one out")
        return self


class Pack(StrictModel):
    """The images of a folder in one file, for file systems that are slow with many."""

    shorter_side: int | None = Field(default=None, ge=8)
    """Larger images are resized until their shorter side has this many pixels, and encoded as JPEG; null to take every
    file's bytes as they are."""
    quality: int = Field(default=95, ge=1, le=100)
    """JPEG quality of images that are resized."""


class CocoSet(StrictModel):
    """Images with boxes and masks in COCO's format, for detectors."""

    source: Literal["coco"]
    """Where images come from."""
    train: str
    """Folder of training images."""
    train_annotations: str
    """JSON file of their annotations."""
    val: str
    """Folder of validation images."""
    val_annotations: str
    """JSON file of their annotations."""


class _Data(StrictModel):
    preprocessing: Preprocessing = Preprocessing()
    """How pixels become network input."""
    workers: int = Field(default=0, ge=0)
    """Loader processes per job; 0 loads in the training process. Never changes a result."""


class DemoData(DemoSet, _Data):
    """The 10,000 + 5,000 Fashion-MNIST images that ship with the package."""


class TorchvisionData(TorchvisionSet, _Data):
    """A set that torchvision knows, used where it lies, else downloaded."""


class FolderData(FolderSet, _Data):
    """A folder of images: class folders, or a flat one without labels."""

    pack: Pack | None = None
    """Copy the images into results/<study>/data/{train,val}.h5, from where all stages read them; null to read the
    folder. Sets to transfer to are not packed."""
    label_lists: dict[Literal["semi-1", "semi-10"], str] = Field(default={})
    """Of semi-supervised protocols, the text files that name the images whose labels are used, one a line; drawn at
    random, the same share of each class, where there is none. ImageNet has lists of its own (google-research/simclr,
    imagenet_subsets/)."""


ImageSet = DemoSet | TorchvisionSet | FolderSet
Data = Annotated[DemoData | TorchvisionData | FolderData, Field(discriminator="source")]
Target = Annotated[ImageSet | CocoSet, Field(discriminator="source")]
