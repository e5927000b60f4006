"""Check that the dataset is large enough for a criterion's settings."""

from bingo.errors import BingoError


def require_images(setting: str, value: int, needed: int, count: int) -> None:
    """Check that the dataset has the ``needed`` images.

    Raises:
        BingoError: ``needed`` is more than ``count``.
    """
    if needed > count:
        raise BingoError(f"bags: {setting} {value} needs at least {needed} images, but there are {count}; lower it")
