"""Write `params.yaml` from a recipe: the changes in its file, applied to `recipes/base.yaml`.

    python -m tasks.params.recipe photo_filter      # or: make recipe NAME=photo_filter

A recipe can change each key that has its own line in the base. Everything else, such as a mapping
in braces, is one value that the recipe replaces. A comment belongs to the key beside or below it.
It stays unless the recipe has another comment for the key.
"""

import argparse
import subprocess
from dataclasses import dataclass, replace
from itertools import dropwhile
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from tasks.errors import UserError, exit_with_message, suggest
from tasks.params.read import PARAMS, read_file

RECIPES = Path("recipes")
BASE = "base"


@dataclass(frozen=True)
class Entry:
    """The lines of a key. Its value is in `line`, in `more` lines, or in the keys `below`."""

    above: list[str]  # lines of comment
    line: str
    comment: str | None  # beside the line; None if there is no room for one
    column: int  # where the comment begins
    more: list[str]
    below: dict[str, "Entry"]


def main() -> None:
    """Write `params.yaml` unless edits would be lost."""
    about = "Write params.yaml from a recipe."
    parser = argparse.ArgumentParser(prog="python -m tasks.params.recipe", description=about)
    parser.add_argument("name", nargs="?", default="", help="a file of recipes/, without .yaml")
    parser.add_argument("--force", action="store_true", help="overwrite edits of params.yaml")
    arguments = parser.parse_args()
    with exit_with_message():
        text = render(arguments.name)
        if not (arguments.force or is_safe_to_overwrite()):
            raise UserError(
                f"{PARAMS} has edits that are not committed and would be lost: commit them, "
                f"or overwrite them with make recipe NAME={arguments.name} ARGS=--force"
            )
        PARAMS.write_text(text, encoding="utf-8")
    print(f"{PARAMS} is now the recipe {arguments.name}")


def is_safe_to_overwrite() -> bool:
    """Return whether `params.yaml` is missing, committed, or equal to a recipe."""
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
        hint = suggest(name, known)
        raise UserError(f"unknown recipe {name!r}; {hint}known are {', '.join(known)}")
    _, base = read_entries(folder / f"{BASE}.yaml")
    head, changes = read_entries(folder / f"{name}.yaml")
    sections = apply(base, changes, f"{folder / name}.yaml: ")
    blocks = [head, *map(write_lines, sections.values())]
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def apply(base: dict[str, Entry], changes: dict[str, Entry], where: str) -> dict[str, Entry]:
    """Return the base's keys with the changes; new keys come last. Raises `UserError`."""
    both = {
        key: apply_entry(base[key], changes[key], where + key) for key in changes if key in base
    }
    return base | changes | both


def apply_entry(base: Entry, entry: Entry, where: str) -> Entry:
    """Return the recipe's entry, with comments and keys of the base where it has none."""
    if base.below and entry.line.endswith("}"):
        received = entry.line.strip()
        raise UserError(f"{where}: expected one key a line, as in {BASE}.yaml; received {received}")
    entry = replace(entry, above=entry.above or base.above)
    if base.comment and not entry.comment:
        entry = add_comment(entry, base)
    if base.below and entry.below:
        return replace(entry, below=apply(base.below, entry.below, f"{where}."))
    return entry


def add_comment(entry: Entry, base: Entry) -> Entry:
    """Return the entry with the base's comment beside it, or above it if there is no room."""
    if entry.comment == "" and len(entry.line) < base.column - 1:
        return replace(entry, comment=base.comment, column=base.column)
    indent = entry.line[: -len(entry.line.lstrip())]
    return replace(entry, above=[*entry.above, f"{indent}{base.comment}"])


def write_lines(entry: Entry) -> list[str]:
    """Return the lines of a key and of all keys below it."""
    room = " " * max(2, entry.column - len(entry.line))
    line = entry.line + room + entry.comment if entry.comment else entry.line
    below = [line for entry in entry.below.values() for line in write_lines(entry)]
    return [*entry.above, line, *entry.more, *below]


def read_entries(path: Path) -> tuple[list[str], dict[str, Entry]]:
    """Return the lines of a file's head comment, and its keys. Raises `UserError` for bad YAML."""
    read_file(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    body = list(dropwhile(lambda line: not line.strip() or line.startswith("#"), lines))
    head = [line for line in lines[: len(lines) - len(body)] if line.strip()]
    return head, _read_below(YAML(typ="rt", pure=True).compose("\n".join(body)), body)


def _read_below(node: MappingNode, lines: list[str], start: int = 0) -> dict[str, Entry]:
    """Return the keys of a mapping with one key a line, from line `start` on."""
    starts = [_find_comment(lines, key.start_mark.line, start) for key, _ in node.value]
    ends = [*starts[1:], len(lines)]
    return {
        key.value: _read_entry(key, value, lines[:end], above)
        for (key, value), above, end in zip(node.value, starts, ends, strict=True)
    }


def _find_comment(lines: list[str], key: int, start: int) -> int:
    """Return the first line of the comment above the line `key`."""
    while key > start and (lines[key - 1].strip() or "#").startswith("#"):
        key -= 1
    return key


def _read_entry(key: Node, value: Node, lines: list[str], start: int) -> Entry:
    """Return the entry of a key whose comment begins in line `start`."""
    place = key.start_mark.line
    line, more = lines[place].rstrip(), lines[place + 1 :]
    above = [line for line in lines[start:place] if line.strip()]
    listed = isinstance(value, CollectionNode) and not value.flow_style
    if not listed and value.end_mark.line > place:  # the value continues in the next line
        return Entry(above, line, None, 0, more, {})
    end = line.index(":", key.end_mark.column) + 1 if listed else value.end_mark.column
    comment = line[end:].strip()
    entry = Entry(above, line[:end], comment, len(line) - len(comment), more, {})
    if listed and isinstance(value, MappingNode):
        return replace(entry, more=[], below=_read_below(value, lines, place + 1))
    return entry


if __name__ == "__main__":
    main()
