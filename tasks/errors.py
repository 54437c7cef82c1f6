"""Whose mistake is it? What a person can mend is a `UserError`; everything else is ours and keeps its traceback."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DISK_FULL = (
    "no space left on device",
    "database or disk is full",
)  # the operating system's words, and SQLite's
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class UserError(ValueError):
    """A person can mend this: a file, a key, a flag. The message says what was expected, what was received, what to do."""


def describe_error(error: BaseException) -> str | None:
    """Return what a person can mend, in words; None where the error is ours.

    A full disk is looked for behind the error too: what fails next, such as MLflow's database, tends to hide it.
    """
    behind: BaseException | None = error
    while behind is not None:
        if any(words in str(behind).lower() for words in DISK_FULL):
            where = (
                getattr(behind, "filename2", None)
                or getattr(behind, "filename", None)
                or "an output"
            )
            return f"no space left on the device while writing {where}: free some and run again; what is finished is kept"
        behind = behind.__context__
    if isinstance(error, FileNotFoundError) and error.filename == "git":
        return "git is not installed: install it, and run again"
    if isinstance(error, OSError) and error.errno in REFUSED and error.filename is not None:
        return f"{error.filename}: {error.strerror}; give this user the right to read and write it, and run again"
    return str(error) if isinstance(error, UserError) else None


@contextmanager
def exit_with_message() -> Iterator[None]:
    """End the program with one message where a person can mend the error; any other keeps its traceback."""
    try:
        yield
    except Exception as error:
        message = describe_error(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")
