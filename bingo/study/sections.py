"""Sections of a study file that several entries share. Does not import torch: Snakemake reads this at every start."""

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
"""Torchvision's block class of each ResNet, and the number of blocks per stage."""
OTHER_NETWORKS = ("efficientnet_b0", "mobilenet_v3_large")
ARCHITECTURES = (*RESNETS, *OTHER_NETWORKS)
TIMM = "timm/"


def setting_error(message: str) -> PydanticCustomError:
    """Return the error of a setting; `bingo.study.schema` adds the key."""
    return PydanticCustomError("setting", message)


class StrictModel(BaseModel):
    """Base class of sections: unknown keys are errors, values are not coerced, instances are immutable."""

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
    """Preprocessing that training and evaluation share."""

    size: int = Field(default=224, ge=8)
    """Side of the square network input, in pixels."""
    mean: list[Mean] = Field(default=[0.485, 0.456, 0.406], min_length=3, max_length=3)
    """Mean of red, green and blue, in [0, 1]; the default is ImageNet's."""
    std: list[Deviation] = Field(default=[0.229, 0.224, 0.225], min_length=3, max_length=3)
    """Standard deviation of red, green and blue; the default is ImageNet's."""
    decoder: Literal["cpu", "nvjpeg"] = "cpu"
    """Decoder of the JPEG files of a folder: loader workers (`cpu`) or the GPU (`nvjpeg`), whose pixels differ
    slightly."""


def _customary_resize(section: dict[str, Any]) -> int:
    """`size` * 256 / 224, rounded"""
    return round(section.get("size", 224) * 256 / 224)


class Preprocessing(NetworkInput):
    """How images become network input; the same for all stages of a study."""

    resize: int = Field(default_factory=_customary_resize, ge=8)
    """For evaluation and embeddings: shorter side, in pixels, before the centre crop of side `size`."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize < self.size:
            raise setting_error("resize must be at least size")
        return self

    def network_input(self) -> NetworkInput:
        """Return the settings that training depends on."""
        return NetworkInput(size=self.size, mean=self.mean, std=self.std, decoder=self.decoder)


def _known_architecture(name: str) -> str:
    if name not in ARCHITECTURES and not (name.startswith(TIMM) and len(name) > len(TIMM)):
        hint = nearest(name, ARCHITECTURES)
        raise setting_error(f"there is no architecture '{name}'{hint}; write timm/<name> for a model of timm")
    return name


Architecture = Annotated[str, AfterValidator(_known_architecture)]


class Backbone(StrictModel):
    """A network of torchvision or timm that outputs pooled features."""

    architecture: Architecture
    """`resnet10` (one basic block per stage), `resnet18`, `resnet34`, `resnet50`, `resnet101`, `resnet152`,
    `efficientnet_b0`, `mobilenet_v3_large`, or `timm/<name>` for any timm model (`pip install timm`)."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """ResNets only. `imagenet`: 7x7 convolution with stride 2 and max pooling. `small`: 3x3 convolution with stride 1,
    for images of about 32 px."""
    width: float = Field(default=1.0, ge=1 / 64, le=4)
    """ResNets only. Factor on the channels of every layer; `resnet50` with 2 is SwAV's RN50w2."""

    @model_validator(mode="after")
    def _only_resnets_vary(self) -> Self:
        if self.architecture not in RESNETS and (self.stem != "imagenet" or self.width != 1):
            raise setting_error(f"stem and width are for ResNets only, not for {self.architecture}; remove them")
        return self


class Steps(StrictModel):
    """A learning rate that drops at given epochs."""

    milestones: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    """Epochs, counted from 0, at which the learning rate is multiplied by `factor`."""
    factor: float = Field(gt=0, lt=1)
    """Factor on the learning rate at each milestone."""


def _schedule_kind(value: Any) -> str:
    return "steps" if isinstance(value, dict | Steps) else "cosine"


Schedule = Annotated[
    Annotated[Literal["cosine"], Tag("cosine")] | Annotated[Steps, Tag("steps")], Discriminator(_schedule_kind)
]


class Training(StrictModel):
    """SGD, by default with MoCo-v2's recipe: a cosine schedule, updated once per epoch, without warm-up."""

    epochs: int = Field(default=200, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(default=256, ge=2)
    """Images per training step over all devices; an incomplete last batch is dropped."""
    lr: float = Field(default=0.03, gt=0)
    """Initial learning rate."""
    schedule: Schedule = "cosine"
    """`cosine`: cosine decay to zero, updated once per epoch; or a section with `milestones` and `factor`."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD momentum."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay of all parameters."""
    views: RecipeName = "paper"
    """Augmentation recipe. `paper`: MoCo-v2's; `cifar`: the same without blur, for small colour images; `small`: crops,
    flips, brightness and contrast, for small grey images; `crop-flip`: crops and flips only."""
    precision: Precision = "auto"
    """`auto`: bfloat16 autocast if the hardware supports it, else float32."""
    sync_batch_norm: bool = False
    """Only for several processes (GPUs). true: batch norm uses the statistics of the whole batch, as in one process;
    false: each process uses the statistics of its part of the batch."""

    @field_validator("schedule", mode="before")
    @classmethod
    def _cosine_or_steps(cls, value: Any) -> Any:
        if value != "cosine" and not isinstance(value, dict | Steps):
            raise setting_error(f"must be cosine or a section with milestones and factor, found {value!r}")
        return value

    @model_validator(mode="after")
    def _milestones_are_reached(self) -> Self:
        late = [] if self.schedule == "cosine" else [m for m in self.schedule.milestones if m >= self.epochs]
        if late:
            message = f"schedule: milestone {late[0]} is never reached in {self.epochs} epochs"
            raise setting_error(f"{message}; set cosine, or milestones below {self.epochs}")
        return self
