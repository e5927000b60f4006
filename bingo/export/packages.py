"""Packages that some formats need, and that the project is installed without."""

from importlib import import_module

from bingo.errors import BingoError


def require_packages(format: str, *names: str) -> None:
    """Refuse a format whose packages are not installed.

    Raises:
        BingoError: one of ``names`` cannot be imported.
    """
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise BingoError(f"--to {format}: needs {name}; pip install '.[export]' in the checkout") from error
