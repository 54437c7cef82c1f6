"""Foreign class folders as a model's classes: by their names, or by what a file of the user says.

    notumor: no_tumor      # folder: class
    other: null            # this folder is left out

Folders that the file does not name must be named like classes. Nothing is guessed: what only resembles a class is suggested.
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
    """Return {folder: class} as the file has it, all of it text. Raises `UserError` where it is no such mapping."""
    try:
        content = YAML(typ="base", pure=True).load(
            file
        )  # no type is guessed: 01 and NA are names like any other
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing: expected a file with lines such as `folder: class` (--classes)"
        ) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise UserError(
            f"{file}: expected lines such as `folder: class` and nothing else, received {content!r:.200}"
        )
    return content


def assign(
    images: Mapping[str, int], said: Mapping[str, str], classes: Sequence[str], where: str
) -> dict[str, str | None]:
    """Return {folder: class}, None for a folder that is left out; `images` are those of each folder, `said` is `read_classes`.

    Raises `UserError` with all folders that mean no class of the model, and a file for them to begin with.
    """
    meant = {
        folder: _meaning(said.get(folder, folder), folder in said, classes) for folder in images
    }
    unknown = [folder for folder, label in meant.items() if label == ""]
    if unknown:
        raise UserError(_explain(unknown, images, said, classes, where))
    if not any(meant.values()):
        raise UserError(
            f"{where}: every folder is left out, so there is no image to assess: name a class for one in --classes"
        )
    return meant


def suggest(name: str, classes: Sequence[str]) -> str | None:
    """Return the class that a name resembles most, whatever its case, spaces and underscores; None where none does."""
    plain = {_plain(label): label for label in classes}
    close = difflib.get_close_matches(_plain(name), plain, n=1)
    return plain[close[0]] if close else None


def _meaning(name: str, is_said: bool, classes: Sequence[str]) -> str | None:
    """Return a class, None for what is left out, "" for what is neither."""
    if name in classes:
        return name
    return None if is_said and name in LEFT_OUT else ""


def _explain(
    unknown: Sequence[str],
    images: Mapping[str, int],
    said: Mapping[str, str],
    classes: Sequence[str],
    where: str,
) -> str:
    widest = max(map(len, unknown))
    lines = [
        f"{len(unknown)} of the {len(images)} class folders in {where} mean no class of the model ({', '.join(classes)}):"
    ]
    draft = []
    for folder in unknown:
        name = said.get(folder, folder)
        close = suggest(name, classes)
        hint = f"; did you mean {close}?" if close else ""
        received = f" said to be {name!r}" if folder in said else ""
        lines.append(f"  {folder:{widest}}  {images[folder]:>6,} images{received}{hint}")
        draft.append(
            f"{_quoted(folder)}: {_quoted(close)}"
            if close
            else f"{_quoted(folder)}: null  # left out; or a class"
        )
    others = [f"{_quoted(folder)}: {_quoted(name) if name not in LEFT_OUT else 'null'}"
              for folder, name in said.items() if folder not in unknown]  # fmt: skip
    remedy = "Nothing was guessed. Check these lines, save them as a file such as classes.yaml, and name it with --classes:"
    return "\n".join([*lines, remedy, "", *others, *draft, ""])


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _quoted(name: str) -> str:
    """Return a name as YAML has it."""
    return (
        name
        if re.fullmatch(r"\w([\w .-]*\w)?", name) and name not in LEFT_OUT
        else json.dumps(name, ensure_ascii=False)
    )
