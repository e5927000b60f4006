"""A small set in COCO's format: coloured rectangles, ellipses and triangles on noise."""

import json

import numpy as np
from PIL import Image, ImageDraw

CATEGORIES = {3: "rectangle", 7: "ellipse", 20: "triangle"}  # numbers with gaps, as COCO's


def write_shapes(folder, images, seed, side):
    """Write PNG files and annotations with polygons; return (folder of the images, annotation file).

    Each image has one to three objects, which do not overlap. The colour says nothing of the category.
    """
    random = np.random.default_rng(seed)
    pictures = folder / "images"
    pictures.mkdir(parents=True)
    listed, annotations = [], []
    for number in range(1, images + 1):
        noise = random.integers(0, 120, (side, side, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        taken = np.zeros((side, side), bool)
        for _ in range(random.integers(1, 4)):
            width, height = random.integers(side // 5, side // 2, 2).tolist()
            x, y = (int(random.integers(0, side - extent)) for extent in (width, height))
            if taken[y : y + height, x : x + width].any():
                continue
            taken[y : y + height, x : x + width] = True
            category = int(random.choice(list(CATEGORIES)))
            corners = outline(CATEGORIES[category], x, y, width, height)
            colour = tuple(random.integers(130, 256, 3).tolist())
            ImageDraw.Draw(picture).polygon([(a - 0.5, b - 0.5) for a, b in corners], fill=colour)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [x, y, width, height],
                    "area": area(corners),
                    "iscrowd": 0,
                    "segmentation": [[float(value) for corner in corners for value in corner]],
                }
            )
        picture.save(pictures / f"{number:04}.png")
        listed.append({"id": number, "file_name": f"{number:04}.png", "height": side, "width": side})
    path = folder / "annotations.json"
    categories = [{"id": number, "name": name, "supercategory": "shape"} for number, name in CATEGORIES.items()]
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": categories}))
    return pictures, path


def outline(kind, x, y, width, height):
    """Return the corners of a shape that fills the box; a pixel's centre is at its number plus a half."""
    if kind == "rectangle":
        return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    if kind == "triangle":
        return [(x + width / 2, y), (x + width, y + height), (x, y + height)]
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return [(x + width * (1 + np.cos(a)) / 2, y + height * (1 + np.sin(a)) / 2) for a in angles]


def area(corners):
    x, y = np.array(corners).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
