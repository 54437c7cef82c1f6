"""Read the code that the reference describes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("tasks", "flows", "serving")


def read_modules() -> Iterator[tuple[Path, ast.Module]]:
    """Yield each module of the project by its path."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def one_line(text: str) -> str:
    """Return a text that fits a cell of a table; what looks like a tag is no tag."""
    line = " ".join(text.split()).replace("|", "\\|")
    return "".join(
        part if part.startswith("`") else part.replace("<", "&lt;")
        for part in re.split(r"(`[^`]*`)", line)
    )
