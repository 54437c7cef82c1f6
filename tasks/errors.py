"""Errors that a person can mend (`UserError`). Any other error is a bug and keeps its traceback."""

import difflib
import errno
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

DISK_FULL = ("no space left on device", "database or disk is full")  # the system's words, SQLite's
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class UserError(ValueError):
    """A mistake that a person can mend, such as one in a file, a key or a flag.

    The message says what was expected, what was received and what to do.
    """


def suggest(received: object, known: Iterable[str]) -> str:
    """Return `did you mean …? ` with the closest known name, or "" if no name is close."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(received).lower(), names, n=1)
    return f"did you mean {names[close[0]]}? " if close else ""


def describe_error(error: BaseException) -> str | None:
    """Return the message for an error that a person can mend, None for our own.

    A full disk is also searched among the causes: an error that follows from it, such as MLflow's,
    tends to hide it.
    """
    if (full := _find_full_disk(error)) is not None:
        return (
            f"no space left on the device while writing {full}: free some and run again; "
            "finished stages are kept"
        )
    if isinstance(error, FileNotFoundError) and error.filename == "git":
        return "git is not installed: install it, and run again"
    if isinstance(error, OSError) and error.errno in REFUSED and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror}; "
            "give this user the right to read and write it, and run again"
        )
    return str(error) if isinstance(error, UserError) else None


def _find_full_disk(error: BaseException | None) -> str | None:
    """Return the file that did not fit on the disk, None if the disk is not full."""
    while error is not None:
        if any(words in str(error).lower() for words in DISK_FULL):
            files = (getattr(error, name, None) for name in ("filename2", "filename"))
            return next(filter(None, files), "an output")
        error = error.__context__
    return None


@contextmanager
def exit_with_message() -> Iterator[None]:
    """End the program with one message for an error that a person can mend."""
    try:
        yield
    except Exception as error:
        message = describe_error(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")
