"""What the names of folders and files say: a split, a class, a group of images, or nothing."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

SPLITS = {
    "train": "training", "training": "training", "trn": "training",
    "val": "validation", "valid": "validation", "validation": "validation",
    "validate": "validation", "dev": "validation",
    "test": "test", "testing": "test", "tst": "test", "holdout": "test",
}  # fmt: skip
SPLIT_WORD = re.compile(rf"({'|'.join(SPLITS)})(?:set|data|dataset|images?|imgs?|folder)?")
# Folders with such names hold images without a class, which are for prediction.
UNLABELLED_WORD = re.compile(
    r"pred|predict|predictions?|unlabell?ed|unknown|submission|inference|all|images?|imgs?|photos?|"
    r"jpe?g|png"
)
# Folders with such names group the images of one class: by batch, session or patient.
GROUP_WORD = re.compile(
    r"batch|set|part|session|day|week|month|year|series|scan|study|patient|subject|case|folder|"
    r"group|run|slice|fold|split|images?|imgs?|photos?|pictures?|left|right|jpe?g|png"
)
NUMBERED = re.compile(r"(?P<label>.*?)[\s._#(-]*\d+\)?")
NAMED = 8  # names that one line lists


def find_split(name: str) -> str | None:
    """Return the split that a folder's name means: `Seg_Train`, `TestSet`, `val2017`.

    Returns None if the name means no split, or several.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W\d_]+", " ", name)
    words = spaced.casefold().split()
    found = {SPLITS[match[1]] for word in words if (match := SPLIT_WORD.fullmatch(word))}
    return found.pop() if len(found) == 1 else None


def read_label(name: str) -> str:
    """Return a file name without ending and number: `cat` for `cat.12.jpg` or `cat (1).png`."""
    stem = PurePosixPath(name).stem
    numbered = NUMBERED.fullmatch(stem)
    return numbered["label"] if numbered else stem


def means_no_class(name: str) -> bool:
    """Say whether a folder's name means a split, or images without a class."""
    return find_split(name) is not None or any(map(UNLABELLED_WORD.fullmatch, _find_words(name)))


def is_group(name: str) -> bool:
    """Say whether a folder's name means a group of images of one class.

    A bare number may be a class, unless it is as long as a date.
    """
    words, numbers = _find_words(name), re.findall(r"\d+", name)
    if not words:
        return bool(numbers) and len(numbers[0]) >= 4
    return all(GROUP_WORD.fullmatch(word) or (len(word) == 1 and numbers) for word in words)


def list_names(names: Sequence[str], most: int = NAMED) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _find_words(name: str) -> list[str]:
    return re.sub(r"[\W\d_]+", " ", name).casefold().split()
