"""The one exception that a user meets: a line saying what is wrong, where, and the remedy."""

import difflib
from collections.abc import Iterable


class BingoError(Exception):
    """A fault in the user's input or surroundings, printed as one line without a traceback.

    Anything else that is raised is a fault of this software and keeps its traceback.
    """

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest name in ``known``, else what ``known`` holds."""
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; known: {', '.join(names)}" if names else "; none is defined"
