"""How a study groups images: the keys of `bags`."""

from abc import abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from bingo.study.sections import StrictModel, setting_error


class Ivf(StrictModel):
    """An inverted file: images in lists by their nearest centroid, of which a search looks into a few."""

    lists: int = Field(default=4096, ge=1)
    """Centroids; some multiple of the root of the number of images."""
    probes: int = Field(default=32, ge=1)
    """Lists that are looked into for each image: more find more and take longer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.probes > self.lists:
            raise setting_error("probes must be at most lists")
        return self


class IvfSearch(StrictModel):
    """Search with an inverted file, which holds all features in memory as float16 and misses some neighbours."""

    ivf: Ivf
    """The index."""


def _search_kind(value: Any) -> str:
    return "index" if isinstance(value, dict | IvfSearch) else "exact"


NeighbourSearch = Annotated[
    Annotated[Literal["exact"], Tag("exact")] | Annotated[IvfSearch, Tag("index")], Discriminator(_search_kind)
]


class BagSection(StrictModel):
    """An entry of `bags`."""

    def named_teacher(self) -> str | None:
        """Return the entry of `teachers` whose features are compared, None where none are."""
        return None

    @abstractmethod
    def kind(self) -> str:
        """Return what the bags are, whatever the study calls them: criterion and size."""


class KnnBag(BagSection):
    """Each image's bag holds its nearest neighbours by cosine similarity of the teacher's features."""

    criterion: Literal["knn"]
    """How images are grouped."""
    teacher: str
    """Entry of `teachers` whose features are compared."""
    size: int = Field(default=5, ge=1)
    """Neighbours per image, the image itself not counted."""
    search: NeighbourSearch = "exact"
    """`exact`, or `{ivf: {...}}`, which is faster for millions of images and misses some neighbours; its recall is
    measured and noted with the bags."""

    @field_validator("search", mode="before")
    @classmethod
    def _exact_or_index(cls, value: Any) -> Any:
        if value != "exact" and not isinstance(value, dict | IvfSearch):
            raise setting_error(f"must be exact, or a section with ivf, found {value!r}")
        return value

    def named_teacher(self) -> str:
        """Return the entry of `teachers` whose features are compared."""
        return self.teacher

    def kind(self) -> str:
        """Return criterion and size."""
        return f"{self.criterion}-{self.size}"


class KmeansBag(BagSection):
    """Each image's bag is its cluster, of spherical k-means on the teacher's features."""

    criterion: Literal["kmeans"]
    """How images are grouped."""
    teacher: str
    """Entry of `teachers` whose features are clustered."""
    clusters: int = Field(ge=1)
    """Number of clusters; one that ends empty is dropped."""
    iterations: int = Field(default=20, ge=1)
    """Rounds of assigning images to centroids and moving these."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the initial centroids."""

    def named_teacher(self) -> str:
        """Return the entry of `teachers` whose features are compared."""
        return self.teacher

    def kind(self) -> str:
        """Return criterion and size."""
        return f"{self.criterion}-{self.clusters}"


class LabelBag(BagSection):
    """Each image's bag holds all images of its class: what perfect bags would give."""

    criterion: Literal["label"]
    """How images are grouped."""

    def kind(self) -> str:
        """Return criterion and size."""
        return self.criterion


class RandomBag(BagSection):
    """Each image's bag holds images drawn at random: what useless bags would give."""

    criterion: Literal["random"]
    """How images are grouped."""
    size: int = Field(default=5, ge=1)
    """Other images per bag, at least."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the draw."""

    def kind(self) -> str:
        """Return criterion and size."""
        return f"{self.criterion}-{self.size}"


Bag = Annotated[KnnBag | KmeansBag | LabelBag | RandomBag, Field(discriminator="criterion")]
