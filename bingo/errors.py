"""The exception that users see: one line with the place, the problem and the remedy."""

import difflib
from collections.abc import Iterable


class BingoError(Exception):
    """An error in the user's input or environment, printed as one line without a traceback.

    Any other exception is a bug and keeps its traceback.
    """

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest name in ``known``, or a list of all known names."""
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; known: {', '.join(names)}" if names else "; none is defined"
