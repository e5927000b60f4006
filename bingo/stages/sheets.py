"""The sheets stage: draw contact sheets of bags."""

from bingo.artifacts.provenance import require_same
from bingo.bags.bags import read_bags
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.report.sheet import choose_anchors, draw_sheet
from bingo.study.report_jobs import SheetsJob


def run(job: SheetsJob, threads: int) -> None:  # noqa: ARG001
    """Draw contact sheets of anchors and their bags, one file per page.

    Raises:
        BingoError: the bags belong to another dataset, or there are no images for a page.
    """
    listing = read_listing(job.listing, "train")
    bags = read_bags(job.bags)
    require_same(job.bags, "dataset", bags.attributes["dataset_digest"], listing.digest, job.listing)
    images = open_images(listing)
    for page, output in job.pages.items():
        draw_sheet(bags, images, choose_anchors(bags, listing.label, page), output)
