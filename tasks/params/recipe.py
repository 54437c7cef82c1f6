"""Write `params.yaml` from a recipe: what it changes, laid over `recipes/base.yaml`.

    python -m tasks.params.recipe photo_filter      # or: make recipe NAME=photo_filter

Keys that the base writes one a line are laid over one by one. Everything else is one value, mappings in braces too, and
the recipe's takes its place. A comment belongs to the key beside or below it, and stays where the recipe has no other.
"""

import argparse
import difflib
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from tasks.errors import UserError, exit_with_message
from tasks.params.read import PARAMS, read_file

RECIPES = Path("recipes")
BASE = "base"


@dataclass(frozen=True)
class Entry:
    """A key as it is written. Its value stands in the line, or in `more` lines, or it has keys `below`."""

    above: list[str]  # lines of comment
    line: str
    comment: str | None  # beside the line; None where there is no room for one
    column: int  # of the comment
    more: list[str]
    below: dict[str, "Entry"]


def main() -> None:
    """Write `params.yaml`, unless edits would be lost."""
    parser = argparse.ArgumentParser(prog="python -m tasks.params.recipe", description="Write params.yaml from a recipe.")
    parser.add_argument("name", nargs="?", default="", help="a file of recipes/, without .yaml")
    parser.add_argument("--force", action="store_true", help="overwrite edits of params.yaml that are not committed")
    arguments = parser.parse_args()
    with exit_with_message():
        text = render(arguments.name)
        if not (arguments.force or is_safe_to_overwrite()):
            raise UserError(
                f"{PARAMS} has edits that are not committed, and they would be lost: commit them, or overwrite them with "
                f"make recipe NAME={arguments.name} ARGS=--force"
            )
        PARAMS.write_text(text, encoding="utf-8")
    print(f"{PARAMS} is the recipe {arguments.name} now")


def is_safe_to_overwrite() -> bool:
    """Say whether `params.yaml` holds nobody's edits: it is missing, or as the last commit or a recipe has it."""
    if not PARAMS.exists():
        return True
    try:
        command = ["git", "status", "--porcelain", "--ignored", "--", str(PARAMS)]
        if not subprocess.run(command, capture_output=True, check=True).stdout:
            return True
    except (FileNotFoundError, subprocess.CalledProcessError):  # no Git, or no repository
        pass
    return PARAMS.read_text(encoding="utf-8") in map(render, list_recipes())


def list_recipes(folder: Path = RECIPES) -> list[str]:
    """Return the names of all recipes."""
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem != BASE)


def render(name: str, folder: Path = RECIPES) -> str:
    """Return the text of a recipe's whole params file, its head comment first. Raises `UserError`."""
    known = list_recipes(folder)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"unknown recipe {name!r}; {hint}known are {', '.join(known)}")
    _, base = read_entries(folder / f"{BASE}.yaml")
    head, changes = read_entries(folder / f"{name}.yaml")
    sections = lay_over(base, changes, f"{folder / name}.yaml: ")
    return "\n\n".join("\n".join(lines) for lines in [head, *map(write_lines, sections.values())]) + "\n"


def lay_over(base: dict[str, Entry], changes: dict[str, Entry], where: str) -> dict[str, Entry]:
    """Return the base with the changes; keys that it lacks come last. `where` begins a message. Raises `UserError`."""
    return base | {key: lay_entry(base[key], entry, where + key) if key in base else entry for key, entry in changes.items()}


def lay_entry(base: Entry, entry: Entry, where: str) -> Entry:
    """Return the recipe's entry, with the base's comments where it has none and the base's other keys below its own."""
    if base.below and entry.line.endswith("}"):
        raise UserError(f"{where}: expected one key a line, as in {BASE}.yaml; received {entry.line.strip()}")
    entry = replace(entry, above=entry.above or base.above)
    if base.comment and not entry.comment:
        entry = add_comment(entry, base)
    return replace(entry, below=lay_over(base.below, entry.below, f"{where}.")) if base.below and entry.below else entry


def add_comment(entry: Entry, base: Entry) -> Entry:
    """Return the entry with the base's comment: in its column, or above the line where there is no room."""
    if entry.comment == "" and len(entry.line) < base.column - 1:
        return replace(entry, comment=base.comment, column=base.column)
    indent = entry.line[: -len(entry.line.lstrip())]
    return replace(entry, above=[*entry.above, f"{indent}{base.comment}"])


def write_lines(entry: Entry) -> list[str]:
    """Return the lines of a key, and of all below it."""
    line = f"{entry.line:<{entry.column - 2}}  {entry.comment}" if entry.comment else entry.line
    return [*entry.above, line, *entry.more, *(line for below in entry.below.values() for line in write_lines(below))]


def read_entries(path: Path) -> tuple[list[str], dict[str, Entry]]:
    """Return the lines of a file's head comment, and its keys. Raises `UserError` where it is no mapping."""
    read_file(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    node = YAML(typ="rt", pure=True).compose("\n".join(lines[first:]))
    return [line for line in lines[:first] if line.strip()], _read_below(node, lines[first:])


def _read_below(node: MappingNode, lines: list[str], start: int = 0) -> dict[str, Entry]:
    """Return the keys of a mapping that is written one key a line, in the lines from `start` on."""
    starts = [_climb(lines, key.start_mark.line, start) for key, _ in node.value] + [len(lines)]
    return {
        key.value: _read_entry(key, value, lines[:end], above)
        for (key, value), above, end in zip(node.value, starts, starts[1:], strict=False)
    }


def _climb(lines: list[str], place: int, start: int) -> int:
    """Return the first line of the comment above a place."""
    while place > start and (lines[place - 1].strip() or "#").startswith("#"):
        place -= 1
    return place


def _read_entry(key: Node, value: Node, lines: list[str], start: int) -> Entry:
    """Return a key as it is written from line `start` on."""
    place = key.start_mark.line
    line, above, more = lines[place].rstrip(), [line for line in lines[start:place] if line.strip()], lines[place + 1 :]
    listed = isinstance(value, CollectionNode) and not value.flow_style
    if not listed and value.end_mark.line > place:  # the value goes on in the next line
        return Entry(above, line, None, 0, more, {})
    end = line.index(":", key.end_mark.column) + 1 if listed else value.end_mark.column
    comment = line[end:].strip()
    entry = Entry(above, line[:end], comment, len(line) - len(comment), more, {})
    if listed and isinstance(value, MappingNode):
        return replace(entry, more=[], below=_read_below(value, lines, place + 1))
    return entry
