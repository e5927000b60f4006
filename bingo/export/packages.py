"""Optional packages of export formats."""

from importlib import import_module

from bingo.errors import BingoError


def require_packages(format: str, *names: str) -> None:
    """Check that the packages of a format are installed.

    Raises:
        BingoError: one of ``names`` cannot be imported.
    """
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise BingoError(f"--to {format}: needs {name}; run pip install '.[export]' in the checkout") from error
