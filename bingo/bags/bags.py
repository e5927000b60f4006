"""Bags of images in one form for every criterion, in memory and on disk."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bingo.artifacts.hdf5 import checked_dataset, read_hdf5, write_hdf5
from bingo.artifacts.provenance import digest_arrays
from bingo.errors import BingoError
from bingo.philox import Stream, uniform


@dataclass(frozen=True)
class Bags:
    """B bags of images; each of N images points at one bag.

    Bag b holds the images ``members[indptr[b] : indptr[b + 1]]``.
    """

    bag_of: NDArray[np.int64]
    """(N,) the bag of each image."""
    indptr: NDArray[np.int64]
    """(B + 1,) where each bag's members start."""
    members: NDArray[np.int64]
    """(nnz,) image positions."""
    includes_anchor: bool
    """Whether every image is a member of its own bag (groups), or none is (neighbours)."""
    similarity: NDArray[np.float32] | None = None
    """(nnz,) cosine similarity of each member to the image whose bag it is in, for knn."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """What is known of them: digests of dataset and teacher, criterion, sizes, purity, provenance."""

    def draw(self, anchors: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """Return one member of each anchor's bag, uniformly: int64 (B,).

        A pure function of (seed, anchor, epoch). An anchor is drawn as its own positive only where its bag has
        nobody else.
        """
        start = self.indptr[self.bag_of[anchors]]
        size = self.indptr[self.bag_of[anchors] + 1] - start
        others = size - self.includes_anchor
        u = uniform(seed, Stream.MEMBER, anchors, epoch, 0, 1)[:, 0]
        drawn = self.members[start + np.floor(u * others).astype(np.int64)]
        # The last member stands in for the anchor, so that all others are equally likely.
        return np.where((drawn == anchors) & (others > 0), self.members[start + size - 1], drawn)

    def same_class_share(self, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return of each image the share of the labelled others in its bag that have its label.

        Args:
            labels: (N,), -1 where unknown.

        Returns:
            (N,), NaN where the image has no label, or nobody else in its bag has one.
        """
        labelled = np.flatnonzero(labels >= 0)
        count = len(self.indptr) - 1
        bag = np.repeat(np.arange(count), np.diff(self.indptr))
        known = labels[self.members] >= 0
        # A bag and a label as one number: sorted, members of one bag and label stand together and are counted by
        # where they begin and end. Nothing larger than `members` is built, however large the bags.
        classes = int(labels.max()) + 1
        pairs = np.sort(bag[known] * classes + labels[self.members[known]])
        own = self.bag_of[labelled] * classes + labels[labelled]
        same = np.searchsorted(pairs, own, side="right") - np.searchsorted(pairs, own, side="left")
        company = np.bincount(bag[known], minlength=count)[self.bag_of[labelled]]
        same, company = same - self.includes_anchor, company - self.includes_anchor
        share = np.full(len(labels), np.nan)
        share[labelled[company > 0]] = same[company > 0] / company[company > 0]
        return share

    def purity(self, labels: NDArray[np.int64]) -> float | None:
        """Return `same_class_share` averaged over the images that have one; None where there is no such image."""
        shares = self.same_class_share(labels)
        shares = shares[~np.isnan(shares)]
        return float(shares.mean()) if len(shares) else None


def write_bags(path: Path, bags: Bags) -> None:
    """Write bags as HDF5; every attribute is kept, and a digest over the arrays is added."""
    arrays: dict[str, NDArray[Any]] = {"bag_of": bags.bag_of, "indptr": bags.indptr, "members": bags.members}
    if bags.similarity is not None:
        arrays["similarity"] = bags.similarity
    attributes = {
        **bags.attributes,
        "kind": "bags",
        "includes_anchor": bags.includes_anchor,
        "digest": digest_arrays(arrays),
    }
    with write_hdf5(path, attributes) as file:
        for name, array in arrays.items():
            checked_dataset(file, name, array)


def read_bags(path: Path) -> Bags:
    """Read bags.

    Raises:
        BingoError: the file is missing or damaged.
    """
    with read_hdf5(path, "bags") as file:
        arrays = {name: file[name][:] for name in file}
        attributes = dict(file.attrs)
        includes_anchor, digest = bool(attributes["includes_anchor"]), attributes["digest"]
        try:
            attributes["provenance"] = json.loads(attributes["provenance"])
        except ValueError as error:
            raise BingoError(f"{path}: damaged (its provenance is no JSON); delete it and run again") from error
    if digest_arrays(arrays) != digest:
        raise BingoError(f"{path}: damaged (bags do not match their digest); delete it and run again")
    if not _are_bags(arrays):
        raise BingoError(f"{path}: its arrays are no bags; delete it and run again")
    return Bags(includes_anchor=includes_anchor, attributes=attributes, **arrays)


def _are_bags(arrays: dict[str, NDArray[Any]]) -> bool:
    """Tell whether arrays have the names, types, shapes and ranges that `Bags` says."""
    types: dict[str, Any] = {"bag_of": np.int64, "indptr": np.int64, "members": np.int64}
    types |= {"similarity": np.float32} if "similarity" in arrays else {}
    if {name: array.dtype for name, array in arrays.items()} != types or any(a.ndim != 1 for a in arrays.values()):
        return False
    images, starts, members = arrays["bag_of"], arrays["indptr"], arrays["members"]
    similarity = arrays.get("similarity", np.zeros(members.shape, np.float32))
    if not (len(images) and len(starts) > 1 and len(members) == len(similarity) and np.isfinite(similarity).all()):
        return False
    ranges = (images, len(starts) - 1), (members, len(images))
    within = all(array.min(initial=0) >= 0 and array.max(initial=0) < limit for array, limit in ranges)
    sizes = np.diff(starts)
    whole = within and starts[0] == 0 and starts[-1] == len(members) and sizes.min() >= 0
    return bool(whole and sizes[images].min() > 0)
