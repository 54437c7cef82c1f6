"""Two classes that are one class: their names look the same, or their files are."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from tasks.errors import UserError
from tasks.imaging.kinds import LFS_POINTER

ENOUGH = 5  # a class of fewer files may repeat those of another class by chance
HEAD = 4096  # bytes that are compared before whole files are

# {size in bytes: {class: files}}
FilesBySize = Mapping[int, Mapping[str, list[Path]]]


def refuse_similar_names(labels: set[str]) -> None:
    """Raise `UserError` for classes that differ only in case, blanks or the coding of letters."""
    by_look: dict[str, list[str]] = {}
    for label in sorted(labels):
        by_look.setdefault(_normalize(label), []).append(label)
    similar = [" and ".join(map(ascii, same)) for same in by_look.values() if len(same) > 1]
    if similar:
        raise UserError(
            "classes whose names differ only in case, blanks or the coding of letters: "
            f"{'; '.join(similar)}. Put the images of one class into one folder. If they are two "
            "classes, set `validate: {layout: {similar_names: keep}}` in params.yaml"
        )


def refuse_repeated_files(files: Mapping[str, list[Path]]) -> None:
    """Raise `UserError` if every file of a class is also a file of another class, byte for byte.

    `files` are the files by class. Unreadable files are left out: the scan names them.
    """
    readable = {
        label: [path for path in paths if os.access(path, os.R_OK)]
        for label, paths in files.items()
    }
    sizes: dict[int, dict[str, list[Path]]] = {}
    for label, paths in readable.items():
        for path in paths:
            sizes.setdefault(path.stat().st_size, {}).setdefault(label, []).append(path)
    read_head = cache(_hash_head)  # each file is opened once
    repeated = [
        f"{label} ({len(paths)})"
        for label, paths in readable.items()
        if len(paths) >= ENOUGH and all(_has_twin(path, label, sizes, read_head) for path in paths)
    ]
    if repeated:
        raise UserError(
            f"every file of {', '.join(repeated)} is also a file of another class, byte for byte: "
            "so it is not a class of its own. Remove the copies from the source, or import the "
            "folder that holds the right classes"
        )


def _has_twin(
    path: Path, label: str, sizes: FilesBySize, read_head: Callable[[Path], bytes | None]
) -> bool:
    """Say whether a file of the class `label` is also a file of another class."""
    of_size = sizes[path.stat().st_size]
    others = [other for name, paths in of_size.items() if name != label for other in paths]
    if not others or read_head(path) is None:
        return False
    return any(
        read_head(other) == read_head(path) and other.read_bytes() == path.read_bytes()
        for other in others
    )


def _hash_head(path: Path) -> bytes | None:
    """Return a hash of a file's beginning; None for an empty file and for a Git LFS pointer."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head or head.startswith(LFS_POINTER):
        return None
    return hashlib.blake2b(head, digest_size=16).digest()


def _normalize(label: str) -> str:
    """Return a name in one case and one coding, without blanks and invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return "".join(
        sign for sign in folded if not sign.isspace() and unicodedata.category(sign) != "Cf"
    )
