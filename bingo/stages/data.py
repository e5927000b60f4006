"""The data stage: list a dataset once, so that every later stage means the same image by the same index."""

import logging

from bingo.artifacts.hdf5 import write_hdf5
from bingo.artifacts.provenance import provenance
from bingo.data.listing import list_split, read_listing, store
from bingo.errors import BingoError
from bingo.study.jobs import DataJob

log = logging.getLogger(__name__)


def run(job: DataJob, threads: int) -> None:
    """List the images of one split of a study; decode each file of a folder once to prove it sound.

    Raises:
        BingoError: a folder is not named, missing or empty, an image cannot be decoded (`on_bad_image: fail`), or
            a validation class is unknown in training.
    """
    inputs, classes = {}, None
    if job.split == "val":
        if job.train_listing is None:
            raise BingoError("data: validation images need --train-listing, whose classes they have")
        train = read_listing(job.train_listing, "train")
        inputs, classes = {"train": train.digest}, train.classes
    listing, bad = list_split(job.data, job.split, job.key, classes, threads)
    attributes = {
        "kind": "listing",
        "source": job.data.source,
        "provenance": provenance("data", job.STAGE_VERSION, job.settings, inputs, images=len(listing), unreadable=bad),
    }
    with write_hdf5(job.output, attributes) as file:
        store(file.create_group(job.split), listing)
    log.info("%s: %d images, %d unreadable left out", job.split, len(listing), bad)
