"""Sections of a study file that several entries share. Imports no torch: it is read whenever Snakemake starts."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bingo.errors import nearest

Mean = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0)]
Precision = Literal["auto", "float32", "bfloat16"]
RecipeName = Literal["paper", "cifar", "small", "crop-flip"]
Interpolation = Literal["bilinear", "bicubic"]
ExportFormat = Literal["detectron2", "huggingface", "onnx", "safetensors", "timm", "torchvision"]
RESNETS: dict[str, tuple[Literal["BasicBlock", "Bottleneck"], list[int]]] = {
    "resnet10": ("BasicBlock", [1, 1, 1, 1]),
    "resnet18": ("BasicBlock", [2, 2, 2, 2]),
    "resnet34": ("BasicBlock", [3, 4, 6, 3]),
    "resnet50": ("Bottleneck", [3, 4, 6, 3]),
    "resnet101": ("Bottleneck", [3, 4, 23, 3]),
    "resnet152": ("Bottleneck", [3, 8, 36, 3]),
}
"""Torchvision's name of a ResNet's blocks, and how many of them each stage has."""
OTHER_NETWORKS = ("efficientnet_b0", "mobilenet_v3_large")
ARCHITECTURES = (*RESNETS, *OTHER_NETWORKS)
TIMM = "timm/"


def setting_error(message: str) -> PydanticCustomError:
    """Return the error of a key, with what is wrong and what helps; `bingo.study.schema` names the key."""
    return PydanticCustomError("said", message)


class StrictModel(BaseModel):
    """A section of the study: unknown keys are errors, values are not coerced, instances do not change."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, section: Any) -> Any:
        for key in section if isinstance(section, dict) else ():
            if key not in cls.model_fields:
                hint = nearest(str(key), cls.model_fields)
                raise setting_error(f"unknown key '{key}'{hint}")
        return section


class NetworkInput(StrictModel):
    """What a network sees, in training too."""

    size: int = Field(default=224, ge=8)
    """Side of the network's square input, in pixels."""
    mean: list[Mean] = Field(default=[0.485, 0.456, 0.406], min_length=3, max_length=3)
    """Mean of red, green and blue, in [0, 1] (ImageNet's)."""
    std: list[Deviation] = Field(default=[0.229, 0.224, 0.225], min_length=3, max_length=3)
    """Standard deviation of red, green and blue (ImageNet's)."""
    decoder: Literal["cpu", "nvjpeg"] = "cpu"
    """Who decodes the JPEGs of a folder: loader workers, or a CUDA device, whose pixels differ slightly."""


def _customary_resize(section: dict[str, Any]) -> int:
    """`size` * 256 / 224, rounded"""
    return round(section.get("size", 224) * 256 / 224)


class Preprocessing(NetworkInput):
    """How pixels become network input; the same for every stage of a study."""

    resize: int = Field(default_factory=_customary_resize, ge=8)
    """Evaluation and embeddings: the shorter side is resized to this, then the centre `size` is cropped."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize < self.size:
            raise setting_error("resize must be at least size")
        return self

    def network_input(self) -> NetworkInput:
        """Return the part that training depends on."""
        return NetworkInput(size=self.size, mean=self.mean, std=self.std, decoder=self.decoder)


def _known_architecture(name: str) -> str:
    if name not in ARCHITECTURES and not (name.startswith(TIMM) and len(name) > len(TIMM)):
        raise setting_error(f"there is no architecture '{name}'{nearest(name, ARCHITECTURES)}; timm's are timm/<name>")
    return name


Architecture = Annotated[str, AfterValidator(_known_architecture)]


class Backbone(StrictModel):
    """A network that ends in pooled features: torchvision's, or one of timm's."""

    architecture: Architecture
    """`resnet10` (one basic block a stage), `resnet18`, `resnet34`, `resnet50`, `resnet101`, `resnet152`,
    `efficientnet_b0`, `mobilenet_v3_large`, or `timm/<name>` of any timm model (`pip install timm`)."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """ResNets: `imagenet` is 7x7 stride 2 and max pooling; `small` 3x3 stride 1, for images of some 32 px."""
    width: float = Field(default=1.0, ge=1 / 64, le=4)
    """ResNets: factor on the channels of every layer; 2 on `resnet50` is SwAV's RN50w2."""

    @model_validator(mode="after")
    def _only_resnets_vary(self) -> Self:
        if self.architecture not in RESNETS and (self.stem != "imagenet" or self.width != 1):
            raise setting_error(f"stem and width belong to ResNets, {self.architecture} has neither")
        return self


class Steps(StrictModel):
    """A learning rate that falls at given epochs."""

    milestones: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    """Epochs, counted from 0, from which the learning rate is multiplied once more by `factor`."""
    factor: float = Field(gt=0, lt=1)
    """What the learning rate is multiplied by."""


def _schedule_kind(value: Any) -> str:
    return "steps" if isinstance(value, dict | Steps) else "cosine"


Schedule = Annotated[
    Annotated[Literal["cosine"], Tag("cosine")] | Annotated[Steps, Tag("steps")], Discriminator(_schedule_kind)
]


class Training(StrictModel):
    """SGD, by default with MoCo-v2's recipe: a cosine schedule per epoch and no warm-up."""

    epochs: int = Field(default=200, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(default=256, ge=2)
    """Images per optimizer step, over all devices; an incomplete last batch is dropped."""
    lr: float = Field(default=0.03, gt=0)
    """Learning rate at the start of the schedule."""
    schedule: Schedule = "cosine"
    """`cosine`: half a cosine to zero, a step per epoch; or a section with `milestones` and `factor`."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD momentum."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay on every parameter."""
    views: RecipeName = "paper"
    """Recipe of random views: MoCo-v2's (`paper`); the same without blur for small colour images (`cifar`); crops,
    flips, brightness and contrast for small grey ones (`small`); crops and flips alone (`crop-flip`)."""
    precision: Precision = "auto"
    """`auto`: bfloat16 autocast where the hardware has it, else float32."""
    sync_batch_norm: bool = False
    """Of several processes (GPUs): whether batch-norm uses the statistics of the whole batch, as one process does, or
    each process those of its own part."""

    @field_validator("schedule", mode="before")
    @classmethod
    def _cosine_or_steps(cls, value: Any) -> Any:
        if value != "cosine" and not isinstance(value, dict | Steps):
            raise setting_error(f"must be cosine, or a section with milestones and factor, found {value!r}")
        return value

    @model_validator(mode="after")
    def _milestones_are_reached(self) -> Self:
        late = [] if self.schedule == "cosine" else [m for m in self.schedule.milestones if m >= self.epochs]
        if late:
            message = f"schedule: milestone {late[0]} is never reached in {self.epochs} epochs"
            raise setting_error(f"{message}; set cosine, or milestones below {self.epochs}")
        return self
