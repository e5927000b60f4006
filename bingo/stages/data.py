"""The data stage: list a dataset, so that all later stages use the same image positions."""

import logging

from bingo.artifacts.hdf5 import write_hdf5
from bingo.artifacts.provenance import provenance
from bingo.data.listing import list_split, read_listing, store
from bingo.errors import BingoError
from bingo.study.jobs import DataJob

log = logging.getLogger(__name__)


def run(job: DataJob, threads: int) -> None:
    """List the images of one split. Decodes each file of a folder once, to find unreadable images.

    Raises:
        BingoError: a folder is not set, does not exist or is empty; an image cannot be decoded
            (`on_bad_image: fail`); or a validation class is not a training class.
    """
    inputs, classes = {}, None
    if job.split == "val":
        if job.train_listing is None:
            raise BingoError("data: the val split needs the classes of the train split; pass --train-listing")
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
    log.info("%s: %d images, %d unreadable images skipped", job.split, len(listing), bad)
