"""What tests of several modules say."""

from bingo.errors import BingoError


def refused(read, path):
    """Return the message with which a file is refused, or None where it is read."""
    try:
        read(path)
    except BingoError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return message
    return None
