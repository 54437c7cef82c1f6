"""The installed packages, compared with the lock file."""

import importlib.metadata
from pathlib import Path

LOCK = Path("requirements.txt")
MISSING = "is missing"
NAMED = 10  # packages that a message lists


def find_version(package: str) -> str:
    """Return the installed version of a package without importing it, or "is missing"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def find_differences(lock: Path) -> list[str]:
    """Return a line for each installed package that differs from a lock file."""
    from packaging.requirements import Requirement

    lines = lock.read_text(encoding="utf-8").splitlines() if lock.exists() else []
    wanted = [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalnum()]
    found = [
        (package, find_version(package.name))
        for package in wanted
        if package.marker is None or package.marker.evaluate()
    ]
    return [
        f"{package.name} {version}, expected {package.specifier}"
        for package, version in found
        if version == MISSING or version not in package.specifier
    ]


def list_some(differences: list[str]) -> str:
    """Return the first differences as lines of a message, and the number of the others."""
    rest = len(differences) - NAMED
    more = [f"… and {rest} more"] if rest > 0 else []
    return "\n  ".join([*differences[:NAMED], *more])
