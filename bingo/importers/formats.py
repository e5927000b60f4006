"""The table of checkpoint formats: by what each is detect_formats, and which networks lie where in it.

All names are those that remain once a prefix ``module.`` that every name has is stripped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bingo.study.teachers import CheckpointFormat

WRAPPED = ", every name under 'module.'"


@dataclass(frozen=True)
class NetworkLayout:
    """One network of a file."""

    name: str
    """What a study file calls it; rows of the same name are layouts that one network may have."""
    backbone: str = ""
    """Prefix of its backbone's names."""
    heads: Mapping[str, str] = field(default_factory=dict)
    """Prefixes that its projection head may have, and the activation between that head's layers."""
    left_out: tuple[str, ...] = ()
    """Prefixes of names that belong to it, but neither to its backbone nor to its head."""


@dataclass(frozen=True)
class Format:
    """How one project writes its networks."""

    name: CheckpointFormat
    parts: tuple[NetworkLayout, ...]
    """Its networks; the first of them that a file has is the default."""
    marks: tuple[str, ...] = ()
    """Regular expressions, each of which must match a name, or the architecture that a study file gives."""
    left_out: tuple[str, ...] = ()
    """Prefixes of names that belong to no network."""
    place: str = ""
    """Where in a file the weights must be for it to be detect_formats; empty for anywhere."""
    unlike: tuple[str, ...] = ()
    """Prefixes of two networks whose shapes must differ for it to be detect_formats."""
    own: bool = False
    """Whether this project writes it, with metadata that say what it holds."""
    same_stem: bool = True
    """Whether a 3x3 first convolution is this project's `small` stem."""


def _encoder(name: str, prefix: str) -> NetworkLayout:
    """A network whose last layer is its head, or which has SwAV's head and prototypes."""
    heads = {f"{prefix}{place}.": "relu" for place in ("fc", "classifier", "projection_head")}
    return NetworkLayout(name, prefix, heads, (f"{prefix}prototypes.",))


def _dino(name: str, prefix: str) -> NetworkLayout:
    return NetworkLayout(name, f"{prefix}backbone.", {f"{prefix}head.mlp.": "gelu"}, (f"{prefix}head.last_layer.",))


_QUERY, _KEY = r"^encoder_q\.", r"^encoder_k\."
_QUEUE = ("queue", "queue_ptr")
_BARE = (NetworkLayout("network", left_out=("fc.", "classifier.")),)

# A file is of the first format whose marks it has, so those that say more come first.
FORMATS = (
    Format("native", (NetworkLayout("network", "backbone.", {"head.": "relu"}),), own=True),
    Format(
        "disco",
        (
            _encoder("student", "encoder_q."),
            _encoder("student-momentum", "encoder_k."),
            _encoder("teacher", "teacher_encoder_q."),
            _encoder("teacher-momentum", "teacher_encoder_k."),
        ),
        (_QUERY, r"^teacher_encoder_q\."),
        _QUEUE,
    ),
    Format(
        "bingo",
        (_encoder("student", "encoder_q."), _encoder("teacher", "encoder_k.")),
        (_QUERY, _KEY),
        _QUEUE,
        unlike=("encoder_q.", "encoder_k."),
    ),
    Format("moco", (_encoder("query", "encoder_q."), _encoder("key", "encoder_k.")), (_QUERY,), _QUEUE),
    Format(
        "dino",
        (_dino("teacher", "teacher."), _dino("student", "student."), _dino("network", ""), NetworkLayout("network")),
        (r"^((teacher|student)\.backbone|head\.mlp)\.",),
    ),
    Format(
        "seed",
        (
            _encoder("student", "student."),
            _encoder("teacher", "teacher.module."),  # SimCLR's, wrapped once more
            _encoder("teacher", "teacher."),
        ),
        (r"^student\.", r"^teacher\."),
        _QUEUE,
    ),
    Format(
        "solo-learn",
        (
            NetworkLayout("online", "backbone.", {"projector.": "relu"}),
            NetworkLayout("online", "encoder.", {"projector.": "relu"}),
            NetworkLayout("momentum", "momentum_backbone.", {"momentum_projector.": "relu"}),
            NetworkLayout("momentum", "momentum_encoder.", {"momentum_projector.": "relu"}),
        ),
        (r"^(backbone|encoder)\.", r"^(projector|classifier|encoder)\."),
        ("classifier.", "momentum_classifier.", "predictor.", "momentum_predictor.", "prototypes.", "queue"),
        same_stem=False,  # pads by 2, so that its feature maps are larger
    ),
    Format(
        "lightly",
        (
            NetworkLayout("online", "backbone.", {"projection_head.layers.": "relu"}),
            NetworkLayout("momentum", "backbone_momentum.", {"projection_head_momentum.layers.": "relu"}),
        ),
        (r"^backbone\.",),
        ("criterion.", "prediction_head.", "prediction_head_momentum.", "prototypes."),
    ),
    Format("swav", (_encoder("network", ""),), (r"^(projection_head|prototypes)\.",)),
    Format("compress", (NetworkLayout("network", heads={"fc.": "relu"}),), place="['model']" + WRAPPED),
    Format("timm", _BARE, (r"^(conv_stem\.|timm/)",)),
    Format("torchvision", _BARE, (r"^(conv1|features\.0\.0)\.",)),
)
