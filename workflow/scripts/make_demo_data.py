"""Write the demo dataset of the package from the four original files of Fashion-MNIST.

    python workflow/scripts/make_demo_data.py /usr/share/datasets/fashion-mnist

Writes the first 10,000 training and 5,000 test images (the originals are already shuffled) to
bingo/data/demo/fashion-mnist-15k.h5, and prints the checksum for bingo/data/arrays.py. Debian's package
dataset-fashion-mnist installs the original files in the folder above.
"""

import hashlib
import sys
from pathlib import Path

import h5py

from bingo.data.arrays import DEMO, load_idx

COUNTS = {"train": 10_000, "val": 5_000}


def main() -> None:
    """Write the demo file from the folder named on the command line."""
    DEMO.parent.mkdir(exist_ok=True)
    with h5py.File(DEMO, "w", libver=("v110", "v110")) as file:
        for split, count in COUNTS.items():
            images, labels = load_idx(Path(sys.argv[1]), split)
            # Large chunks, because gzip compresses similarities between images.
            file.create_dataset(
                f"{split}/image",
                data=images[:count, ..., 0],
                chunks=(1000, 28, 28),
                compression="gzip",
                compression_opts=9,
                fletcher32=True,
            )
            file.create_dataset(f"{split}/label", data=labels[:count].astype("uint8"), fletcher32=True, chunks=True)
        file.attrs["licence"] = "MIT, copyright (c) 2017 Zalando SE, https://tech.zalando.com"
        file.attrs["source"] = "Fashion-MNIST: Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747"
    print(f"{hashlib.sha256(DEMO.read_bytes()).hexdigest()}  {DEMO} ({DEMO.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
