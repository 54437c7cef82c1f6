"""Identify files and folders by their SHA-256, and code by its commit."""

import hashlib
import subprocess
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """Return the SHA-256 of the paths and contents of all files in a folder, sorted by path."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()
    )
    listing = "".join(f"{file_sha256(path)}  {name}\n" for name, path in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def git_revision() -> str:
    """Return the commit of the working tree, or "" outside of Git.

    The commit ends in `-dirty` if a tracked file was changed.
    """
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip()
