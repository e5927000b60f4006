"""What every criterion needs of its settings, refused in the same words."""

from bingo.errors import BingoError


def require_images(setting: str, value: int, needed: int, count: int) -> None:
    """Refuse a setting that ``count`` images are too few for.

    Raises:
        BingoError: ``needed`` is more than ``count``.
    """
    if needed > count:
        raise BingoError(f"bags: {setting} {value} needs at least {needed} images, but there are {count}; lower it")
