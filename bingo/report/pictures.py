"""Pictures as data URLs."""

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
        BingoError: it is missing, or no SVG.
    """
    if path.suffix != ".svg":
        raise BingoError(f"{path}: no SVG, which is what a report shows of figures")
    content = read_checked(path)
    try:
        whole = ET.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    except ET.ParseError as error:
        raise BingoError(f"{path}: damaged or no SVG ({error}); delete it and run again") from error
    if not whole:
        raise BingoError(f"{path}: no SVG, which is what a report shows of figures")
    return _url("image/svg+xml", content)


def embed_sheet(path: Path) -> str:
    """Return a contact sheet, a PNG, as a data URL of WebP: photographs are a tenth as large so.

    Raises:
        BingoError: it is missing, or no picture.
    """
    try:
        with Image.open(io.BytesIO(read_checked(path))) as picture:
            compressed = io.BytesIO()
            picture.convert("RGB").save(compressed, "WEBP", quality=_QUALITY)
    except (OSError, ValueError, SyntaxError) as error:
        raise BingoError(f"{path}: damaged or no picture ({error}); delete it and run again") from error
    return _url("image/webp", compressed.getvalue())


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
