"""Classes that are one: by their names, or by the bytes of their files."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from tasks.errors import UserError

ENOUGH = 5  # files of a class that are no chance copies of others
HEAD = 4096  # bytes that are compared before whole files are
POINTER = b"version https://git-lfs"  # what Git LFS leaves in place of a file that it did not fetch


def refuse_similar(labels: set[str]) -> None:
    """Raise `UserError` naming classes that differ in case, blanks or the coding of letters only."""
    by_look: dict[str, list[str]] = {}
    for label in sorted(labels):
        by_look.setdefault(_look_of(label), []).append(label)
    alike = [" and ".join(map(ascii, same)) for same in by_look.values() if len(same) > 1]
    if alike:
        raise UserError(
            f"classes whose names differ in case, blanks or the coding of letters only: {'; '.join(alike)}. "
            "Put the images of one class into one folder, or, where they are two classes, set "
            "`validate: {layout: {similar_names: keep}}` in params.yaml"
        )


def refuse_repeated(files: Mapping[str, list[Path]]) -> None:
    """Raise `UserError` where each file of a class is, byte for byte, a file of other classes too. `files` are by class."""
    sizes: dict[int, dict[str, list[Path]]] = {}
    files = {
        label: [path for path in paths if os.access(path, os.R_OK)]
        for label, paths in files.items()
    }  # `scan` names others
    for label, paths in files.items():
        for path in paths:
            sizes.setdefault(path.stat().st_size, {}).setdefault(label, []).append(path)
    head = cache(_head)  # of files of one size, each is opened once
    repeated = [
        f"{label} ({len(paths)})"
        for label, paths in files.items()
        if len(paths) >= ENOUGH and all(_has_twin(path, label, sizes, head) for path in paths)
    ]
    if repeated:
        raise UserError(
            f"every file of {', '.join(repeated)} is also a file of another class, byte for byte: that is no class of its own. "
            "Remove the copies from the source, or import the folder that holds the right classes"
        )


def _has_twin(
    path: Path,
    label: str,
    sizes: Mapping[int, Mapping[str, list[Path]]],
    head: Callable[[Path], bytes | None],
) -> bool:
    """Say whether a file is also one of another class. `sizes` has the files of each size by class, `head` how one begins."""
    of_size = sizes[path.stat().st_size]
    others = [other for name, paths in of_size.items() if name != label for other in paths]
    if not others or head(path) is None:
        return False
    return any(
        head(other) == head(path) and other.read_bytes() == path.read_bytes() for other in others
    )


def _head(path: Path) -> bytes | None:
    """Return what tells a file's beginning apart; None of an empty file and of a pointer of Git LFS."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    return (
        None
        if not head or head.startswith(POINTER)
        else hashlib.blake2b(head, digest_size=16).digest()
    )


def _look_of(label: str) -> str:
    """Return what a name looks like: without blanks and marks that are not seen, in one case and one coding."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return "".join(
        sign for sign in folded if not sign.isspace() and unicodedata.category(sign) != "Cf"
    )
