"""Write `params.yaml` from a recipe: what it changes, laid over `recipes/base.yaml`.

    python -m tasks.params.recipe photo_filter      # or: make recipe NAME=photo_filter

Keys that the base writes one a line are laid over one by one. Everything else is one value, a
mapping in braces too, and the recipe's takes its place. A comment belongs to the key beside or
below it, and stays where the recipe has no other.
"""

import argparse
import difflib
import subprocess
from dataclasses import dataclass, replace
from itertools import dropwhile
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from tasks.errors import UserError, exit_with_message
from tasks.params.read import PARAMS, read_file

RECIPES = Path("recipes")
BASE = "base"


@dataclass(frozen=True)
class Entry:
    """A key as it is written. Its value stands in the line, in `more` lines, or as keys `below`."""

    above: list[str]  # lines of comment
    line: str
    comment: str | None  # beside the line; None where there is no room for one
    column: int  # of the comment
    more: list[str]
    below: dict[str, "Entry"]


def main() -> None:
    """Write `params.yaml`, unless edits would be lost."""
    about = "Write params.yaml from a recipe."
    parser = argparse.ArgumentParser(prog="python -m tasks.params.recipe", description=about)
    parser.add_argument("name", nargs="?", default="", help="a file of recipes/, without .yaml")
    parser.add_argument("--force", action="store_true", help="overwrite edits of params.yaml")
    arguments = parser.parse_args()
    with exit_with_message():
        text = render(arguments.name)
        if not (arguments.force or is_safe_to_overwrite()):
            raise UserError(
                f"{PARAMS} has edits that are not committed, and they would be lost: commit them, "
                f"or overwrite them with make recipe NAME={arguments.name} ARGS=--force"
            )
        PARAMS.write_text(text, encoding="utf-8")
    print(f"{PARAMS} is the recipe {arguments.name} now")


def is_safe_to_overwrite() -> bool:
    """Say whether no edits are lost: there is no file, or the last commit or a recipe has it."""
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
    """Return the whole params file of a recipe, its head comment first. Raises `UserError`."""
    known = list_recipes(folder)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"unknown recipe {name!r}; {hint}known are {', '.join(known)}")
    _, base = read_entries(folder / f"{BASE}.yaml")
    head, changes = read_entries(folder / f"{name}.yaml")
    sections = lay_over(base, changes, f"{folder / name}.yaml: ")
    blocks = [head, *map(write_lines, sections.values())]
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def lay_over(base: dict[str, Entry], changes: dict[str, Entry], where: str) -> dict[str, Entry]:
    """Return the base's keys with the changes, keys that it lacks last. Raises `UserError`."""
    both = {key: lay_entry(base[key], changes[key], where + key) for key in changes if key in base}
    return base | changes | both


def lay_entry(base: Entry, entry: Entry, where: str) -> Entry:
    """Return the recipe's entry, with the comments and keys of the base that it lacks."""
    if base.below and entry.line.endswith("}"):
        received = entry.line.strip()
        raise UserError(f"{where}: expected one key a line, as in {BASE}.yaml; received {received}")
    entry = replace(entry, above=entry.above or base.above)
    if base.comment and not entry.comment:
        entry = add_comment(entry, base)
    if base.below and entry.below:
        return replace(entry, below=lay_over(base.below, entry.below, f"{where}."))
    return entry


def add_comment(entry: Entry, base: Entry) -> Entry:
    """Return the entry with the base's comment: in its column, or above where there is no room."""
    if entry.comment == "" and len(entry.line) < base.column - 1:
        return replace(entry, comment=base.comment, column=base.column)
    indent = entry.line[: -len(entry.line.lstrip())]
    return replace(entry, above=[*entry.above, f"{indent}{base.comment}"])


def write_lines(entry: Entry) -> list[str]:
    """Return the lines of a key, and of all below it."""
    room = " " * max(2, entry.column - len(entry.line))
    line = entry.line + room + entry.comment if entry.comment else entry.line
    below = [line for entry in entry.below.values() for line in write_lines(entry)]
    return [*entry.above, line, *entry.more, *below]


def read_entries(path: Path) -> tuple[list[str], dict[str, Entry]]:
    """Return a file's head comment, line by line, and its keys. Raises `UserError` for bad YAML."""
    read_file(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    body = list(dropwhile(lambda line: not line.strip() or line.startswith("#"), lines))
    head = [line for line in lines[: len(lines) - len(body)] if line.strip()]
    return head, _read_below(YAML(typ="rt", pure=True).compose("\n".join(body)), body)


def _read_below(node: MappingNode, lines: list[str], start: int = 0) -> dict[str, Entry]:
    """Return the keys of a mapping that is written one key a line, in the lines from `start` on."""
    starts = [_climb(lines, key.start_mark.line, start) for key, _ in node.value]
    spans = zip(node.value, starts, [*starts[1:], len(lines)], strict=True)
    return {pair[0].value: _read_entry(*pair, lines[:end], above) for pair, above, end in spans}


def _climb(lines: list[str], place: int, start: int) -> int:
    """Return the first line of the comment above a place."""
    while place > start and (lines[place - 1].strip() or "#").startswith("#"):
        place -= 1
    return place


def _read_entry(key: Node, value: Node, lines: list[str], start: int) -> Entry:
    """Return a key as it is written from line `start` on."""
    place = key.start_mark.line
    line, more = lines[place].rstrip(), lines[place + 1 :]
    above = [line for line in lines[start:place] if line.strip()]
    listed = isinstance(value, CollectionNode) and not value.flow_style
    if not listed and value.end_mark.line > place:  # the value goes on in the next line
        return Entry(above, line, None, 0, more, {})
    end = line.index(":", key.end_mark.column) + 1 if listed else value.end_mark.column
    comment = line[end:].strip()
    entry = Entry(above, line[:end], comment, len(line) - len(comment), more, {})
    if listed and isinstance(value, MappingNode):
        return replace(entry, more=[], below=_read_below(value, lines, place + 1))
    return entry


if __name__ == "__main__":
    main()
