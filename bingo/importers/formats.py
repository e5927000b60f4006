"""The table of checkpoint formats: how to recognise each format, and which networks it contains.

All names are without the prefix ``module.`` if every name has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bingo.study.teachers import CheckpointFormat

WRAPPED = ", all names under 'module.'"


@dataclass(frozen=True)
class NetworkLayout:
    """Layout of one network in a checkpoint."""

    name: str
    """Name in study files; layouts with the same name are alternatives."""
    backbone: str = ""
    """Prefix of the backbone's names."""
    heads: Mapping[str, str] = field(default_factory=dict)
    """Possible prefixes of the projection head, with the activation between its layers."""
    left_out: tuple[str, ...] = ()
    """Prefixes of names that belong to the network, but not to its backbone or head."""


@dataclass(frozen=True)
class Format:
    """Checkpoint format of one project."""

    name: CheckpointFormat
    parts: tuple[NetworkLayout, ...]
    """Networks of the format; the first one in a file is the default."""
    patterns: tuple[str, ...] = ()
    """Regular expressions; each must match a name, or the architecture in the study file."""
    left_out: tuple[str, ...] = ()
    """Prefixes of names that belong to no network."""
    location: str = ""
    """Required location of the weights in the file; empty for any."""
    differing: tuple[str, ...] = ()
    """Prefixes of two networks whose shapes must differ."""
    is_native: bool = False
    """Whether it is this project's format, which has metadata."""
    same_stem: bool = True
    """Whether a 3x3 first convolution is equivalent to this project's `small` stem."""


def _encoder(name: str, prefix: str) -> NetworkLayout:
    """Return the layout of a network whose last layer is its head, or which has SwAV's head and prototypes."""
    heads = {f"{prefix}{head}.": "relu" for head in ("fc", "classifier", "projection_head")}
    return NetworkLayout(name, prefix, heads, (f"{prefix}prototypes.",))


def _dino(name: str, prefix: str) -> NetworkLayout:
    return NetworkLayout(name, f"{prefix}backbone.", {f"{prefix}head.mlp.": "gelu"}, (f"{prefix}head.last_layer.",))


_QUERY, _KEY = r"^encoder_q\.", r"^encoder_k\."
_QUEUE = ("queue", "queue_ptr")
_BARE = (NetworkLayout("network", left_out=("fc.", "classifier.")),)

# The first matching format wins, so more specific formats come first.
FORMATS = (
    Format("native", (NetworkLayout("network", "backbone.", {"head.": "relu"}),), is_native=True),
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
        differing=("encoder_q.", "encoder_k."),
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
            _encoder("teacher", "teacher.module."),  # SimCLR's teacher, wrapped twice
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
        same_stem=False,  # solo-learn uses padding 2, which gives larger feature maps
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
    Format("compress", (NetworkLayout("network", heads={"fc.": "relu"}),), location="['model']" + WRAPPED),
    Format("timm", _BARE, (r"^(conv_stem\.|timm/)",)),
    Format("torchvision", _BARE, (r"^(conv1|features\.0\.0)\.",)),
)
