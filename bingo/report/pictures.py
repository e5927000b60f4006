"""Images as data URLs."""

import base64
import io
import xml.etree.ElementTree as ET
from pathlib import Path

from PIL import Image

from bingo.artifacts.files import read_checked
from bingo.errors import BingoError

_QUALITY = 80


def embed_picture(path: Path) -> str:
    """Return an SVG as a data URL.

    Raises:
        BingoError: the file is missing or not an SVG.
    """
    if path.suffix != ".svg":
        raise BingoError(f"{path}: is not an SVG; name the .svg file of the figure")
    content = read_checked(path)
    try:
        is_svg = ET.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    except ET.ParseError as error:
        raise BingoError(f"{path}: is damaged or not an SVG ({error}); delete it and run again") from error
    if not is_svg:
        raise BingoError(f"{path}: is not an SVG; delete it and run again")
    return _url("image/svg+xml", content)


def embed_sheet(path: Path) -> str:
    """Return a contact sheet (PNG) as a data URL of WebP, which is ten times smaller for photographs.

    Raises:
        BingoError: the file is missing or not an image.
    """
    try:
        with Image.open(io.BytesIO(read_checked(path))) as picture:
            compressed = io.BytesIO()
            picture.convert("RGB").save(compressed, "WEBP", quality=_QUALITY)
    except (OSError, ValueError, SyntaxError) as error:
        raise BingoError(f"{path}: is damaged or not an image ({error}); delete it and run again") from error
    return _url("image/webp", compressed.getvalue())


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
