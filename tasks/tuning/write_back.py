"""Write the best values of a search into `params.yaml`.

ruamel.yaml reads and writes the file. It keeps comments, quotes, blank lines and the order of keys.
It may change the spaces within a line and the indentation of lists, and it writes empty values as
`null`.
"""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from tasks.errors import UserError
from tasks.params.search_space import to_plain, vary
from tasks.params.whole import Params, load_params


def write_values(file: Path, architecture: str, values: Mapping[str, Any]) -> None:
    """Write values at dotted paths, such as `dense.0`, of an architecture into a params file.

    Raises `UserError`, and leaves the file as it was, if another value would change too.
    """
    file = file.resolve()
    before = load_params(file)
    wanted = vary(before.architectures[architecture], dict(values))
    text = _edit(file, architecture, values, to_plain(wanted.structure) | to_plain(wanted.train))
    with tempfile.NamedTemporaryFile(
        dir=file.parent, prefix=f".{file.name}.", delete=False
    ) as target:
        part = Path(target.name)
        target.write(text.encode())
        os.fsync(target.fileno())
    architectures = before.architectures | {architecture: wanted}
    try:
        if not _contains(part, before.model_copy(update={"architectures": architectures})):
            by_hand = ", ".join(f"{path}: {format_value(value)}" for path, value in values.items())
            raise UserError(
                f"{file.name}: architectures.{architecture} cannot be changed without changing "
                f"something else; does it use anchors or aliases? Write by hand: {by_hand}"
            )
        shutil.copymode(file, part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def format_value(value: object) -> str:
    """Return a value as a person would write it in YAML, in one line."""
    if isinstance(value, float):
        return _format_float(value)
    return value if isinstance(value, str) else json.dumps(value)


def _edit(file: Path, architecture: str, values: Mapping[str, Any], whole: dict[str, Any]) -> str:
    """Return the text of the file with the values.

    `whole` is the complete architecture with the values; it completes lists that the file lacks.
    """
    yaml = YAML(typ="rt", pure=True)
    yaml.Representer = _Representer
    yaml.preserve_quotes, yaml.width = True, 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = file.read_bytes().decode()
    content = yaml.load(text.replace("\r\n", "\n"))
    sections = content["architectures"]
    for path, value in values.items():
        sections[architecture] = _set(sections[architecture], path.split("."), value, whole)
    target = io.StringIO()
    yaml.dump(content, target)
    return target.getvalue().replace("\n", "\r\n" if "\r\n" in text else "\n")


def _set(held: Any, steps: list[str], value: Any, whole: Any) -> Any:
    """Return the content `held` of a file with `value` at the end of `steps`."""
    if not steps:
        return _in_one_line(value)
    step, *rest = steps
    if isinstance(held, list):
        held[int(step)] = _set(held[int(step)], rest, value, whole[int(step)])
        return held
    if isinstance(whole, list):
        return _in_one_line(whole)
    if not held or isinstance(held, str):  # nothing, or the name of an augmentation to start from
        held = _in_one_line({"like": held} if held else {})
    held[step] = _set(held.get(step), rest, value, whole[step])
    return held


def _in_one_line(value: Any) -> Any:
    """Return a value that ruamel writes in brackets if it is a mapping or a list."""
    if isinstance(value, Mapping):
        mapping = CommentedMap({key: _in_one_line(item) for key, item in value.items()})
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        sequence = CommentedSeq(map(_in_one_line, value))
        sequence.fa.set_flow_style()
        return sequence
    return value


def _contains(file: Path, wanted: Params) -> bool:
    try:
        return load_params(file) == wanted
    except UserError:
        return False


def _format_float(value: float) -> str:
    """Return a number without an exponent, which some readers of YAML take for text."""
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else f"{text}.0"


class _Representer(RoundTripRepresenter):
    """Writes new numbers without an exponent, and nothing as `null`."""

    def represent_float(self, data: float) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:float", _format_float(data))

    def represent_none(self, data: None) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(float, _Representer.represent_float)
_Representer.add_representer(type(None), _Representer.represent_none)
