"""Change values of an architecture in `params.yaml`; every other byte, comments and layout among them, stays.

Nothing is dumped anew: a value is replaced where the parser found it, and a key that is missing is put before the others.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tasks.errors import UserError
from tasks.params.search_space import to_plain, vary
from tasks.params.whole import Params, load_params

PLAIN = re.compile(r"[A-Za-z][\w./-]*")
NAMED = "augmentation"  # the key whose value may be a name, to start from


def rewrite(file: Path, architecture: str, values: Mapping[str, Any]) -> None:
    """Write `values` at dotted paths, such as `dense.0`, of an architecture into a params file, all of them or none.

    Raises `UserError`, with the file as it was, where its layout does not let the values be changed in place.
    """
    file = file.resolve()
    before = load_params(file)
    wanted = vary(before.architectures[architecture], dict(values))
    text = rewritten(
        file.read_bytes().decode(),
        architecture,
        values,
        to_plain(wanted.structure) | to_plain(wanted.train),
    )
    with tempfile.NamedTemporaryFile(
        dir=file.parent, prefix=f".{file.name}.", delete=False
    ) as target:
        part = Path(target.name)
        target.write(text.encode())
        os.fsync(target.fileno())
    try:
        if not _says(
            part,
            before.model_copy(
                update={"architectures": before.architectures | {architecture: wanted}}
            ),
        ):
            told = ", ".join(f"{path}: {scalar(value)}" for path, value in values.items())
            raise UserError(
                f"{file.name}: architectures.{architecture} cannot be changed without changing something else; does it use "
                f"anchors or aliases? Write by hand: {told}"
            )
        shutil.copymode(file, part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def rewritten(
    text: str, architecture: str, values: Mapping[str, Any], whole: Mapping[str, Any]
) -> str:
    """Return the text with `values` at dotted paths; `whole` is all of the architecture, with them, for lists that it lacks."""
    for path, value in values.items():
        root = YAML(typ="rt", pure=True).compose(text)
        section = _child(_child(root, "architectures"), architecture)
        text = _changed(text, section, path.split("."), value, whole)
    return text


def scalar(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(scalar, value)) + "]"
    if isinstance(value, float):
        return str(value) if value.is_integer() else format(Decimal(repr(value)), "f")
    if (
        isinstance(value, str)
        and PLAIN.fullmatch(value)
        and YAML(typ="safe", pure=True).load(value) == value
    ):
        return value
    return json.dumps(value)  # null, true, a whole number, a text in quotes


def _says(file: Path, wanted: Params) -> bool:
    try:
        return load_params(file) == wanted
    except UserError:
        return False


def _child(node: Node, step: str) -> Node | None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == step:
                if _is_empty(value):
                    value.start_mark = value.end_mark = key.end_mark
                return value
    elif isinstance(node, SequenceNode) and int(step) < len(node.value):
        return node.value[int(step)]
    return None


def _changed(text: str, node: Node, steps: list[str], value: Any, whole: Any) -> str:
    """Return the text with the value at the end of `steps`, going down from `node` as far as the text does."""
    for place, step in enumerate(steps):
        child = _child(node, step)
        if child is None:
            named = steps[:place] == [NAMED]
            return _added(text, node, step, _missing(whole[step], steps[place + 1 :], value), named)
        node, whole = child, whole[int(step)] if isinstance(node, SequenceNode) else whole[step]
    return _replaced(text, node, scalar(value))


def _missing(whole: Any, steps: list[str], value: Any) -> Any:
    """Return what to write where the text has nothing: the value below its keys, but a list as a whole."""
    if not steps or isinstance(whole, list):
        return whole if steps else value
    return {steps[0]: _missing(whole[steps[0]], steps[1:], value)}


def _added(text: str, node: Node, step: str, value: Any, named: bool) -> str:
    """Return the text with one key more in `node`, behind the others."""
    entry = f"{step}: {scalar(value)}"
    if isinstance(node, ScalarNode):  # nothing, null, or a name to start from
        return _replaced(
            text,
            node,
            f"{{like: {node.value}, {entry}}}" if named and not _is_empty(node) else f"{{{entry}}}",
        )
    if node.flow_style:
        place = _end(node) if node.value else node.start_mark.index + 1
        return (
            text[:place]
            + (", " if node.value else "")
            + entry
            + (text[place:] if node.value else text[place:].lstrip(" "))
        )
    newline = "\r\n" if "\r\n" in text else "\n"
    line = text.find("\n", _end(node)) + 1 or len(text)
    before = text[:line] if text[:line].endswith("\n") else text[:line] + newline
    return before + " " * node.value[0][0].start_mark.column + entry + newline + text[line:]


def _replaced(text: str, node: Node, new: str) -> str:
    if _is_empty(node):
        place = text.index(":", node.start_mark.index) + 1
        return f"{text[:place]} {new}{text[place:]}"
    end = node.end_mark.index if isinstance(node, ScalarNode) or node.flow_style else _end(node)
    return text[: node.start_mark.index] + new + text[end:]


def _end(node: Node) -> int:
    """Return where the last value in a node ends; to the parser one without brackets reaches over comments to the next key."""
    if isinstance(node, ScalarNode) or not node.value:
        return node.end_mark.index
    last = node.value[-1]
    key, value = last if isinstance(last, tuple) else (last, last)
    if _is_empty(value):
        return key.end_mark.index
    return (
        value.end_mark.index if isinstance(value, ScalarNode) or value.flow_style else _end(value)
    )


def _is_empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.start_mark.index == node.end_mark.index
