"""Bags of images: one format for every criterion, in memory and on disk."""

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
    """K bags of images; each of N images has one bag.

    Bag k contains the images ``members[indptr[k] : indptr[k + 1]]`` (CSR layout).
    """

    bag_of: NDArray[np.int64]
    """(N,) bag of each image."""
    indptr: NDArray[np.int64]
    """(K + 1,) start of each bag in ``members``."""
    members: NDArray[np.int64]
    """(M,) image positions."""
    includes_anchor: bool
    """Whether every image is a member of its own bag (groups) or none is (neighbours)."""
    similarity: NDArray[np.float32] | None = None
    """(M,) cosine similarity of each member to the anchor of its bag; only for knn."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """HDF5 attributes: digests of dataset and teacher, criterion, sizes, purity, provenance."""

    def draw(self, anchors: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """Draw one positive per anchor, uniformly from the other members of its bag: (B,) to int64 (B,).

        A pure function of seed, anchor and epoch. An anchor that is alone in its bag is its own positive.
        """
        start = self.indptr[self.bag_of[anchors]]
        size = self.indptr[self.bag_of[anchors] + 1] - start
        others = size - self.includes_anchor
        u = uniform(seed, Stream.MEMBER, anchors, epoch, 0, 1)[:, 0]
        drawn = self.members[start + np.floor(u * others).astype(np.int64)]
        # The draw excludes the last member. It replaces a drawn anchor, so that all others are equally likely.
        return np.where((drawn == anchors) & (others > 0), self.members[start + size - 1], drawn)

    def same_class_share(self, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return, for each image, the share of the other labelled members of its bag that have its label.

        Args:
            labels: (N,), -1 where unknown.

        Returns:
            (N,) in [0, 1]; NaN where the image or all other members of its bag are unlabelled.
        """
        labelled = np.flatnonzero(labels >= 0)
        count = len(self.indptr) - 1
        bag = np.repeat(np.arange(count), np.diff(self.indptr))
        known = labels[self.members] >= 0
        # Encode (bag, label) as one number and sort: the members of one bag and label are contiguous, and two binary
        # searches count them. No array is larger than `members`.
        classes = int(labels.max()) + 1
        codes = np.sort(bag[known] * classes + labels[self.members[known]])
        anchors = self.bag_of[labelled] * classes + labels[labelled]
        same = np.searchsorted(codes, anchors, side="right") - np.searchsorted(codes, anchors, side="left")
        total = np.bincount(bag[known], minlength=count)[self.bag_of[labelled]]
        same, total = same - self.includes_anchor, total - self.includes_anchor
        share = np.full(len(labels), np.nan)
        share[labelled[total > 0]] = same[total > 0] / total[total > 0]
        return share

    def purity(self, labels: NDArray[np.int64]) -> float | None:
        """Return the mean of `same_class_share` without its NaNs, or None if it is NaN for every image."""
        shares = self.same_class_share(labels)
        shares = shares[~np.isnan(shares)]
        return float(shares.mean()) if len(shares) else None


def write_bags(path: Path, bags: Bags) -> None:
    """Write bags as HDF5, with all attributes and a digest of the arrays."""
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
        BingoError: the file does not exist or is damaged.
    """
    with read_hdf5(path, "bags") as file:
        arrays = {name: file[name][:] for name in file}
        attributes = dict(file.attrs)
        includes_anchor, digest = bool(attributes["includes_anchor"]), attributes["digest"]
        try:
            attributes["provenance"] = json.loads(attributes["provenance"])
        except ValueError as error:
            raise BingoError(f"{path}: is damaged (provenance is not JSON); delete it and run again") from error
    if digest_arrays(arrays) != digest:
        raise BingoError(f"{path}: is damaged (bags do not match their digest); delete it and run again")
    if not _are_bags(arrays):
        raise BingoError(f"{path}: does not contain valid bags; delete it and run again")
    return Bags(includes_anchor=includes_anchor, attributes=attributes, **arrays)


def _are_bags(arrays: dict[str, NDArray[Any]]) -> bool:
    """Tell whether arrays have the names, dtypes, shapes and ranges documented in `Bags`."""
    types: dict[str, Any] = {"bag_of": np.int64, "indptr": np.int64, "members": np.int64}
    types |= {"similarity": np.float32} if "similarity" in arrays else {}
    if {name: array.dtype for name, array in arrays.items()} != types or any(a.ndim != 1 for a in arrays.values()):
        return False
    bag_of, indptr, members = arrays["bag_of"], arrays["indptr"], arrays["members"]
    similarity = arrays.get("similarity", np.zeros(members.shape, np.float32))
    if not (len(bag_of) and len(indptr) > 1 and len(members) == len(similarity) and np.isfinite(similarity).all()):
        return False
    limits = (bag_of, len(indptr) - 1), (members, len(bag_of))
    in_range = all(array.min(initial=0) >= 0 and array.max(initial=0) < limit for array, limit in limits)
    sizes = np.diff(indptr)
    valid = in_range and indptr[0] == 0 and indptr[-1] == len(members) and sizes.min() >= 0
    return bool(valid and sizes[bag_of].min() > 0)
