"""How a study groups images into bags: the settings under `bags`."""

from abc import abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from bingo.study.sections import StrictModel, setting_error


class Ivf(StrictModel):
    """An inverted file: images are stored in lists by nearest centroid, and a search reads only a few lists."""

    lists: int = Field(default=4096, ge=1)
    """Number of lists (centroids); use a small multiple of the square root of the number of images."""
    probes: int = Field(default=32, ge=1)
    """Lists searched for each image; more lists find more neighbours but take longer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.probes > self.lists:
            raise setting_error("probes must be at most lists")
        return self


class IvfSearch(StrictModel):
    """Approximate search with an inverted file. It keeps all features in memory as float16 and may miss neighbours."""

    ivf: Ivf
    """Settings of the index."""


def _search_kind(value: Any) -> str:
    return "index" if isinstance(value, dict | IvfSearch) else "exact"


NeighbourSearch = Annotated[
    Annotated[Literal["exact"], Tag("exact")] | Annotated[IvfSearch, Tag("index")], Discriminator(_search_kind)
]


class BagSection(StrictModel):
    """An entry of `bags`."""

    def named_teacher(self) -> str | None:
        """Return the entry of `teachers` whose features are used; None if the criterion uses no features."""
        return None

    @abstractmethod
    def kind(self) -> str:
        """Return criterion and size, independent of the entry's name in the study."""


class KnnBag(BagSection):
    """The bag of an image holds its nearest neighbours by cosine similarity of the teacher's features."""

    criterion: Literal["knn"]
    """How images are grouped."""
    teacher: str
    """Entry of `teachers` whose features are compared."""
    size: int = Field(default=5, ge=1)
    """Neighbours per image, excluding the image itself."""
    search: NeighbourSearch = "exact"
    """`exact`, or `{ivf: {...}}` for approximate search, which is faster for millions of images. Its recall is measured
    and stored with the bags."""

    @field_validator("search", mode="before")
    @classmethod
    def _exact_or_index(cls, value: Any) -> Any:
        if value != "exact" and not isinstance(value, dict | IvfSearch):
            raise setting_error(f"must be exact or a section with ivf, found {value!r}")
        return value

    def named_teacher(self) -> str:
        """Return the entry of `teachers` whose features are used."""
        return self.teacher

    def kind(self) -> str:
        """Return criterion and size."""
        return f"{self.criterion}-{self.size}"


class KmeansBag(BagSection):
    """The bag of an image is its cluster from spherical k-means on the teacher's features."""

    criterion: Literal["kmeans"]
    """How images are grouped."""
    teacher: str
    """Entry of `teachers` whose features are clustered."""
    clusters: int = Field(ge=1)
    """Number of clusters; empty clusters are dropped."""
    iterations: int = Field(default=20, ge=1)
    """Number of k-means iterations."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the initial centroids."""

    def named_teacher(self) -> str:
        """Return the entry of `teachers` whose features are used."""
        return self.teacher

    def kind(self) -> str:
        """Return criterion and size."""
        return f"{self.criterion}-{self.clusters}"


class LabelBag(BagSection):
    """The bag of an image holds all images of its class. Use it as an upper bound for the quality of bags."""

    criterion: Literal["label"]
    """How images are grouped."""

    def kind(self) -> str:
        """Return criterion and size."""
        return self.criterion


class RandomBag(BagSection):
    """The bag of an image holds random images. Use it as a lower bound for the quality of bags."""

    criterion: Literal["random"]
    """How images are grouped."""
    size: int = Field(default=5, ge=1)
    """Minimum number of other images per bag."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the random assignment."""

    def kind(self) -> str:
        """Return criterion and size."""
        return f"{self.criterion}-{self.size}"


Bag = Annotated[KnnBag | KmeansBag | LabelBag | RandomBag, Field(discriminator="criterion")]
