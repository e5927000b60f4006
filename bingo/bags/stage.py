"""Entry points of the bags stage: bags, and a picture of them."""

import logging
from pathlib import Path

from bingo.artifacts import provenance, require_same
from bingo.bags.bags import read_bags, write_bags
from bingo.bags.knn import knn_bags
from bingo.bags.sheet import draw_sheet
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.embeddings.embeddings import read_embeddings
from bingo.jobs import BagsJob

log = logging.getLogger(__name__)


def make_bags(job: BagsJob, listing_path: Path, teacher_path: Path, embeddings_path: Path, output: Path) -> None:
    """Group the training images.

    Raises:
        BingoError: the embeddings belong to another dataset or teacher, or the bag size does not fit N.
    """
    listing = read_listing(listing_path, "train")
    embeddings = read_embeddings(embeddings_path, listing_path, listing, teacher_path)
    bags = knn_bags(embeddings.features, job.bags.size)
    purity = bags.purity(listing.label)
    log.info("purity: %s", "unknown, there are no labels" if purity is None else f"{purity:.4f}")
    inputs = {
        "dataset": listing.digest,
        "teacher": embeddings.teacher_digest,
        "embeddings": embeddings.digest,
    }
    bags.attributes.update(
        dataset_digest=listing.digest,
        teacher_digest=embeddings.teacher_digest,
        criterion=job.bags.criterion,
        provenance=provenance("bags", job.version, job.model_dump(mode="json"), inputs),
    )
    if bags.similarity is not None:
        bags.attributes["mean_similarity"] = float(bags.similarity.mean())
    if purity is not None:
        bags.attributes["purity"] = purity
    write_bags(output, bags)


def make_sheet(listing_path: Path, bags_path: Path, output: Path) -> None:
    """Draw a contact sheet of some anchors and their bags.

    Raises:
        BingoError: the bags belong to another dataset.
    """
    listing = read_listing(listing_path, "train")
    bags = read_bags(bags_path)
    require_same(bags_path, "dataset", bags.attributes["dataset_digest"], listing.digest, listing_path)
    draw_sheet(bags, open_images(listing), output)
