"""Training steps on precomputed views: distillation beside the released code, MoCo-v2 beside lightly."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import BenchmarkRow, device_name, repeated, side_by_side
from benchmarks.released import ReleasedStep
from bingo.methods.bingo import Bingo
from bingo.methods.moco import Moco
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import TeacherNetwork
from bingo.models.head import mlp_head
from bingo.study.method import Layer, Method, View
from bingo.study.sections import Backbone, Training
from bingo.training.device import autocast, pick_device, resolve_precision
from bingo.training.model import TrainingModel
from bingo.training.step import StepInput, TeacherOutputs
from bingo.training.teacher import OnlineTeacher, to_device
from bingo.views.cutmix import cutmix, draw_box

TEMPERATURE, LR, EPOCH = 0.2, 0.03, 20
"""`official` has all its terms from epoch 11 on."""


@dataclass(frozen=True)
class Scale:
    """Sizes for one kind of device."""

    suffix: str
    device: str
    size: int
    batch: int
    student: Backbone
    teacher: Backbone
    moco: Backbone
    steps: int
    """Steps per repeat."""
    repeats: int
    goals: tuple[str, str, str]
    """Aims for `distill-step`, `distill-step-stored` and `moco-step`."""


def _small(architecture: str) -> Backbone:
    return Backbone.model_validate({"architecture": architecture, "stem": "small"})


SCALES = [
    Scale(
        "",
        "cpu",
        32,
        64,
        _small("resnet18"),
        _small("resnet50"),
        _small("resnet18"),
        1,
        3,
        ("ratio >= 3, fraction >= 0.9", "ratio >= 8", "ratio >= 1.3"),
    ),
    Scale(
        "-gpu",
        "cuda",
        224,
        256,
        Backbone(architecture="resnet18"),
        Backbone(architecture="resnet50", width=2.0),
        Backbone(architecture="resnet50"),
        4,
        3,
        ("ratio >= 4, fraction >= 0.85", "ratio >= 8", ""),
    ),
]


def rows() -> Iterator[BenchmarkRow]:
    """Measure the scale of this machine's device; the rows of the other device stay empty."""
    device = pick_device()
    names = ["distill-step", "distill-step-stored", "moco-step", "moco-step-bf16"]
    for scale in SCALES:
        if scale.device == device.type:
            yield from _distillation(scale, device)
            yield from _moco(scale, device)
        elif scale.device == "cuda":
            for name, goal in zip(names, [*scale.goals, ""], strict=True):
                yield BenchmarkRow(name + scale.suffix, "images/s", "no GPU", goal)


def _distillation(scale: Scale, device: torch.device) -> Iterator[BenchmarkRow]:
    dtype = resolve_precision("auto", device)
    views = ("anchor", "positive", "anchor_target", "positive_target")
    images = {name: _noise(scale, device, seed) for seed, name in enumerate(views)}
    teacher = _teacher(scale.teacher, device)
    method = Bingo.model_validate(
        {
            "method": "bingo",
            "objective": "official",
            "bags": "knn",
            "backbone": scale.student,
            "training": Training(lr=LR),
        }
    )
    online = Ours(method, OnlineTeacher(teacher, "eval"), images, dtype, device)
    stored = {name: images[name] for name in views[:2]}
    replayed = Ours(method, _Stored(teacher.dim, scale.batch, device), stored, dtype, device)
    released = ReleasedStep(
        nn.Sequential(*copy.deepcopy([online.model.backbone, online.model.head])).to(
            memory_format=torch.contiguous_format
        ),
        nn.Sequential(*copy.deepcopy([teacher.backbone, teacher.head])).to(memory_format=torch.contiguous_format),
        online.model.queues["negatives"].keys.clone(),  # type: ignore[operator, union-attr]
        TEMPERATURE,
        LR,
    )
    contiguous = {name: value.contiguous() for name, value in images.items()}
    student = nn.Sequential(*copy.deepcopy([online.model.backbone, online.model.head]))
    frozen = nn.Sequential(teacher.backbone, teacher.head)
    seen = [
        images["anchor"],
        images["positive"],
        cutmix(images["anchor"], images["positive"], draw_box(0, EPOCH, 0, scale.size)),
    ]
    bare = partial(_bare, student, seen, dtype)

    def ceiling() -> None:
        with torch.no_grad(), autocast(dtype, device):
            for name in views[2:]:
                frozen(images[name])
        bare()

    box = draw_box(0, EPOCH, 0, scale.size)
    pasted = (box.top, box.left, box.bottom, box.right)
    seconds = side_by_side(
        {
            "online": repeated(scale.steps, online),
            "stored": repeated(scale.steps, replayed),
            "reference": repeated(scale.steps, lambda: released(contiguous, pasted)),
            "online ceiling": repeated(scale.steps, ceiling),
            "stored ceiling": repeated(scale.steps, bare),
        },
        scale.repeats,
        device,
    )
    amount = scale.steps * scale.batch
    for kind, name, goal in zip(
        ("online", "stored"), ("distill-step", "distill-step-stored"), scale.goals, strict=False
    ):
        row = seconds.pick(ours=kind, reference="reference", ceiling=f"{kind} ceiling")
        yield row.row(name + scale.suffix, "images/s", device_name(device), amount, goal)


def _moco(scale: Scale, device: torch.device) -> Iterator[BenchmarkRow]:
    from benchmarks.lightly_moco import LightlyStep  # installed only by `make bench`

    dtype = resolve_precision("auto", device)
    images = {name: _noise(scale, device, seed) for seed, name in enumerate(("query", "key"))}
    method = Moco.model_validate({"method": "moco", "backbone": scale.moco, "training": Training(lr=LR)})
    ours = Ours(method, None, images, dtype, device)
    contiguous = [image.contiguous() for image in images.values()]
    lightly = {
        precision: LightlyStep(
            copy.deepcopy(ours.model.backbone).to(memory_format=torch.contiguous_format),
            method.queue_size, method.temperature, method.key_momentum, LR, precision,
        ).to(device)
        for precision in {torch.float32, dtype}
    }  # fmt: skip
    student = nn.Sequential(*copy.deepcopy([ours.model.backbone, ours.model.head]))
    momentum = copy.deepcopy(student)

    def ceiling() -> None:
        with torch.no_grad(), autocast(dtype, device):
            momentum(images["key"])
        _bare(student, [images["query"]], dtype)

    work = {"ours": ours, "ceiling": ceiling}
    work |= {f"reference {precision}": partial(step, *contiguous) for precision, step in lightly.items()}
    seconds = side_by_side({name: repeated(scale.steps, do) for name, do in work.items()}, scale.repeats, device)
    amount = scale.steps * scale.batch
    for name, precision, goal in (("moco-step", torch.float32, scale.goals[2]), ("moco-step-bf16", torch.bfloat16, "")):
        if precision not in lightly:
            yield BenchmarkRow(name + scale.suffix, "images/s", f"no bfloat16: {device_name(device)}", goal)
            continue
        row = seconds.pick(ours="ours", reference=f"reference {precision}", ceiling="ceiling")
        yield row.row(name + scale.suffix, "images/s", device_name(device), amount, goal)


class Ours:
    """A training step of a method, as in the training loop."""

    def __init__(
        self,
        method: Method,
        teacher: TeacherOutputs | None,
        images: dict[str, Tensor],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        torch.manual_seed(0)
        self.model = TrainingModel(method, teacher).to(device).train()
        self.optimizer = make_optimizer(self.model, method.training)
        rows = np.arange(len(next(iter(images.values()))))
        self.batch = StepInput(0, EPOCH, 0, images, {"anchor": rows, "positive": rows})
        self.dtype = dtype

    def __call__(self) -> dict[str, Tensor]:
        """Take one step."""
        return take_step(self.model, self.optimizer, self.batch, self.dtype)


def make_optimizer(model: TrainingModel, training: Training) -> torch.optim.Optimizer:
    """Return SGD with a constant learning rate."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(parameters, training.lr, training.momentum, weight_decay=training.weight_decay)


def take_step(
    model: TrainingModel, optimizer: torch.optim.Optimizer, batch: StepInput, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Take one step like the training loop; return the loss and log values."""
    values: dict[str, Tensor] = model(batch, dtype)
    optimizer.zero_grad(set_to_none=True)
    values["loss"].backward()
    optimizer.step()
    model.after_step()
    return {name: value.detach() for name, value in values.items()}


class _Stored:
    """Outputs like those of `bingo.training.teacher.StoredTeacher`: one view of all images, in float16."""

    def __init__(self, dim: int, images: int, device: torch.device) -> None:
        self.stored, self.device = np.random.default_rng(0).standard_normal((images, dim)).astype(np.float16), device

    def width(self, layer: Layer) -> int:
        return self.stored.shape[1]

    def outputs(self, layer: Layer, view: View, batch: StepInput, images: Tensor | None) -> Tensor:
        return to_device(self.stored[batch.rows[view.image]], self.device)


def _bare(network: nn.Module, views: list[Tensor], dtype: torch.dtype) -> None:
    """Run a network forward and backward on each view."""
    network.zero_grad(set_to_none=True)
    for images in views:
        with autocast(dtype, images.device):
            outputs = network(images)
        outputs.backward(torch.ones_like(outputs))


def _teacher(spec: Backbone, device: torch.device) -> TeacherNetwork:
    torch.manual_seed(1)
    backbone = build_backbone(spec)
    width = int(backbone.dim)  # type: ignore[arg-type]
    networks = [
        network.to(device).eval().requires_grad_(False) for network in (backbone, mlp_head(width, [width, 128]))
    ]
    return TeacherNetwork(*networks, "digest", {})  # type: ignore[arg-type]


def _noise(scale: Scale, device: torch.device, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(scale.batch, 3, scale.size, scale.size, generator=generator).to(device)
    return images.contiguous(memory_format=torch.channels_last)
