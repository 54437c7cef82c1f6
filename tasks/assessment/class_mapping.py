"""Map the class folders of a foreign data set to the classes of a model.

A folder with the name of a class is that class. For others, a YAML file of the user decides:

    notumor: no_tumor      # folder: class
    other: null            # this folder is left out

No class is guessed. Similar names are only suggested.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from tasks.errors import UserError

LEFT_OUT = ("", "~", "null")


def read_classes(file: Path) -> dict[str, str]:
    """Return {folder: class} of a file as text. Raises `UserError` if it is not such a mapping."""
    try:
        # Type "base" keeps all values as text, since 01 and NA are class names.
        content = YAML(typ="base", pure=True).load(file)
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing: expected a file with lines such as `folder: class` (--classes)"
        ) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise UserError(
            f"{file}: expected only lines such as `folder: class`, received {content!r:.200}"
        )
    return content


def map_folders(
    images: Mapping[str, int], given: Mapping[str, str], classes: Sequence[str], source: Path
) -> dict[str, str | None]:
    """Return {folder: class}, with None for a folder that is left out.

    `images` is {folder: number of images}. `given` is the result of `read_classes`. Raises
    `UserError` with all folders that have no class, and with lines to start a file from.
    """
    classes_of: dict[str, str | None] = {}
    unknown = []
    for folder in images:
        name = given.get(folder, folder)
        classes_of[folder] = name if name in classes else None
        if name not in classes and not (folder in given and name in LEFT_OUT):
            unknown.append(folder)
    if unknown:
        raise UserError(_describe_unknown(unknown, images, given, classes, source))
    if not any(classes_of.values()):
        raise UserError(
            f"{source}: all folders are left out, so there is no image to assess. Name a class for "
            "one of them in --classes"
        )
    return classes_of


def suggest(name: str, classes: Sequence[str]) -> str | None:
    """Return the most similar class, ignoring case, spaces and underscores, or None."""
    plain = {_simplify(label): label for label in classes}
    close = difflib.get_close_matches(_simplify(name), plain, n=1)
    return plain[close[0]] if close else None


def _describe_unknown(
    unknown: Sequence[str],
    images: Mapping[str, int],
    given: Mapping[str, str],
    classes: Sequence[str],
    source: Path,
) -> str:
    widest = max(map(len, unknown))
    lines, draft = [], []
    for folder, name in given.items():
        if folder not in unknown:
            draft.append(f"{_quote(folder)}: {'null' if name in LEFT_OUT else _quote(name)}")
    for folder in unknown:
        close = suggest(given.get(folder, folder), classes)
        hint = f"; did you mean {close}?" if close else ""
        received = f", given as {given[folder]!r}" if folder in given else ""
        lines.append(f"  {folder:{widest}}  {images[folder]:>6,} images{received}{hint}")
        draft.append(f"{_quote(folder)}: {_quote(close) if close else 'null  # or a class'}")
    return "\n".join(
        [
            f"{len(unknown)} of the {len(images)} class folders in {source} are not a class of the "
            f"model ({', '.join(classes)}):",
            *lines,
            "Check these lines, save them in a file such as classes.yaml, and pass it with "
            "--classes. A folder with null is left out:",
            "",
            *draft,
            "",
        ]
    )


def _simplify(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _quote(name: str) -> str:
    """Return a name as YAML writes it."""
    is_plain = re.fullmatch(r"\w([\w .-]*\w)?", name) and name not in LEFT_OUT
    return name if is_plain else json.dumps(name, ensure_ascii=False)
