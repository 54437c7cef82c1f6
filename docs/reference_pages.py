"""Write the tables of the reference pages from the code: a hook of MkDocs.

A line `<!-- reference: params -->` in a page becomes the table that `TABLES` has under this name.
"""

import ast
import html
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tasks.params.architectures import ARCHITECTURES, BACKBONES, Architecture
from tasks.params.section import Section
from tasks.params.whole import Params

ROOT = Path(__file__).parents[1]
ROOMS = ("tasks", "flows", "serving")
PLACES = {
    "suspects": "data/results/<architecture>/suspects.csv",
    "shared_suspects": "data/suspects.csv",
}
MARKER = re.compile(r"^<!-- reference: (\w+) -->$", re.MULTILINE)
KINDS = get_args(Architecture.model_fields["structure"].annotation)  # the kinds of architectures
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
NAMES = {
    NoneType: "`null`",
    bool: "true or false",
    float: "number",
    int: "whole number",
    str: "text",
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace each marker of a page by its table."""
    return MARKER.sub(lambda marker: "\n".join(TABLES[marker[1]]()), markdown)


def write_params() -> Iterator[str]:
    """Yield a chapter for each section of `params.yaml`, with a table of its keys."""
    for name, field in Params.model_fields.items():
        yield f"\n## {field.alias or name}\n"
        if name == "architectures":
            yield from _write_architectures()
        else:
            section = _section(field.annotation)
            yield f"{_first_paragraph(section)}\n"
            yield from _table(find_keys(section))


def _write_architectures() -> Iterator[str]:
    yield "Each key of this section is an architecture, and its value a mapping."
    yield "`like` names the row of the table below that it starts from; its own name by default."
    yield "Keys of [`train`](#train) may be given too, and count for this architecture only.\n"
    for kind in KINDS:
        yield f"\n### Keys of {kind.__name__}\n"
        yield f"{_first_paragraph(kind)}\n"
        yield from _table(find_keys(kind))
    question = _section(Architecture.model_fields["question"].annotation)
    yield "\n### Which classes it tells apart\n"
    yield from _table(find_keys(question))


def write_architectures() -> Iterator[str]:
    """Yield a table of the architectures that can be named."""
    yield "| name | kind | what differs from the defaults |"
    yield "|---|---|---|"
    for name, structure in ARCHITECTURES.items():
        own = structure.model_dump(mode="json", exclude_defaults=True)
        keys = ", ".join(f"{key}: {_yaml(value)}" for key, value in own.items())
        yield f"| `{name}` | {type(structure).__name__} | `{keys}` |"


def write_backbones() -> Iterator[str]:
    """Yield the pretrained networks, and the smallest image that each takes."""
    for least in sorted(set(BACKBONES.values())):
        names = [f"`{name}`" for name, side in BACKBONES.items() if side == least]
        yield f"- from {least} pixels a side: {', '.join(names)}"


@dataclass(frozen=True)
class Key:
    """A key of `params.yaml`: its dotted path, its field in the schema, and its default."""

    path: str
    field: FieldInfo
    default: Any


def find_keys(section: type[BaseModel], prefix: str = "", held: Any = None) -> Iterator[Key]:
    """Yield the keys of a section, and those of the sections within it.

    `held` is the section that is the default; its values are those of the keys.
    """
    for name, field in section.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        within = _section(field.annotation)
        value = getattr(held, name, field.get_default(call_default_factory=True))
        yield Key(path, field, value)
        if within is not None:
            steps = {dict: ".<name>.", tuple: ".<place>."}.get(_container(field.annotation), ".")
            yield from find_keys(within, f"{path}{steps}", value)


def _table(keys: Iterator[Key]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for key in keys:
        kind = " ".join([_type(key.field.annotation), *_bounds(key.field.metadata)])
        text = _one_line(key.field.description or "")
        path = f"<code>{html.escape(key.path).replace('.', '.<wbr>')}</code>"
        yield f"| {path} | {kind} | {_default(key.default)} | {text} |"


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return NAMES.get(annotation, "mapping" if _section(annotation) else "any value")
    if origin is Literal:
        return ", ".join(f"`{_yaml(value)}`" for value in arguments)
    kinds = [_type(argument) for argument in arguments if _is_type(argument)]
    if origin is Annotated:
        return " ".join([kinds[0], *_bounds(arguments[1:])])
    if origin in (tuple, list):
        return f"list of {' and '.join(dict.fromkeys(kinds))}"
    return f"mapping of {' to '.join(kinds)}" if origin is dict else " or ".join(kinds)


def _is_type(argument: Any) -> bool:
    return isinstance(argument, type) or get_origin(argument) is not None


def _bounds(metadata: Any) -> Iterator[str]:
    items = [held for item in metadata for held in getattr(item, "metadata", [item])]
    bounds = [
        f"{words} {_yaml(getattr(item, name))}"
        for item in items
        for name, words in BOUNDS.items()
        if hasattr(item, name)
    ]
    if bounds:
        yield f"({', '.join(bounds)})"


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the schema that an annotation holds, alone, optional, or in a list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


def _container(annotation: Any) -> Any:
    kinds = [annotation, *get_args(annotation)]
    return next((get_origin(kind) for kind in kinds if get_origin(kind) in (dict, tuple)), None)


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "none: it has to be given"
    return "as below" if isinstance(value, BaseModel) else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """Return a value as `params.yaml` has it, on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:_}" if value >= 10_000 else f"{value:.10g}"
    return str(value)


def write_columns() -> Iterator[str]:
    """Yield a chapter for each dictionary of columns that a module has, such as `FILES_COLUMNS`."""
    for name, columns in sorted(find_columns().items()):
        file = name.removesuffix("_COLUMNS").lower()
        yield f"\n## {file}\n"
        yield f"{' and '.join(f'`{place}`' for place in _places(file))}\n"
        yield "| column | meaning |"
        yield "|---|---|"
        yield from (f"| `{column}` | {_one_line(text)} |" for column, text in columns.items())


def _places(table: str) -> list[str]:
    """Return where a table is written: as named in `PLACES`, else as `dvc.yaml` says."""
    if table in PLACES:
        return [PLACES[table]]
    written = set(re.findall(r"[\w$/{}]+\.csv", (ROOT / "dvc.yaml").read_text()))
    paths = sorted(path for path in written if path.endswith(f"/{table}.csv"))
    return [path.replace("${key}", "<architecture>") for path in paths] or [f"{table}.csv"]


def find_columns() -> dict[str, dict[str, str]]:
    """Return the dictionaries of columns of all modules, by their names."""
    return {
        name: value
        for _, tree in _modules()
        for name, value in _constants(tree).items()
        if name.endswith("_COLUMNS") and isinstance(value, dict)
    }


def _constants(tree: ast.Module) -> dict[str, Any]:
    """Return the constants of a module that consist of literals and of such constants."""
    known: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and _is_plain(node.value, known):
            value = eval(compile(ast.Expression(node.value), "constant", "eval"), {}, known)
            target = getattr(node, "target", None) or node.targets[0]
            if isinstance(target, ast.Tuple):
                known |= {name.id: item for name, item in zip(target.elts, value, strict=True)}
            elif isinstance(target, ast.Name):
                known[target.id] = value
    return known


def _is_plain(value: ast.expr | None, known: Mapping[str, Any]) -> bool:
    """Say whether a value consists of literals and of names that are known."""
    kinds = (ast.Dict, ast.Tuple, ast.Constant, ast.Subscript, ast.JoinedStr, ast.FormattedValue)
    return value is not None and all(
        isinstance(node, (*kinds, ast.expr_context))
        or (isinstance(node, ast.Name) and node.id in known)
        for node in ast.walk(value)
    )


def write_targets() -> Iterator[str]:
    """Yield a table of the targets of the Makefile."""
    yield "| command | what it does |"
    yield "|---|---|"
    for target, text in re.findall(r"(?m)^([a-z]+):.*?## (.*)$", (ROOT / "Makefile").read_text()):
        yield f"| `make {target}` | {_one_line(text)} |"


def write_options() -> Iterator[str]:
    """Yield a chapter for each command line, with a table of its options."""
    for path, tree in _modules():
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        parsers = [call for call in calls if ast.unparse(call.func) == "argparse.ArgumentParser"]
        if not parsers or path.name == "stage.py":
            continue
        yield f"\n### python -m {'.'.join(path.with_suffix('').parts)}\n"
        yield f"{_one_line(_keyword(parsers[0], 'description'))}\n"
        yield "| option | meaning | default |"
        yield "|---|---|---|"
        yield from map(_option, sorted(filter(_is_option, calls), key=lambda call: call.lineno))


def _is_option(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"


def _option(call: ast.Call) -> str:
    names = ", ".join(f"`{ast.literal_eval(name)}`" for name in call.args)
    metavar, choices = _keyword(call, "metavar"), _keyword(call, "choices")
    shown = f" `{metavar}`" if metavar and names.startswith("`-") else ""
    meaning = _one_line(_keyword(call, "help")) + (f"; one of `{choices}`" if choices else "")
    default = _keyword(call, "default")
    return f"| {names}{shown} | {meaning} | {f'`{default}`' if default else ''} |"


def _keyword(call: ast.Call, name: str) -> str:
    """Return an argument of a call as text: what a literal says, else the code itself."""
    value = next((word.value for word in call.keywords if word.arg == name), None)
    if value is None:
        return ""
    try:
        literal = ast.literal_eval(value)
    except ValueError:
        return ast.unparse(value)
    return ", ".join(map(str, literal)) if isinstance(literal, list | tuple) else str(literal)


def write_settings() -> Iterator[str]:
    """Yield a table of the environment variables that set the REST server."""
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    tree = ast.parse((ROOT / "serving/settings.py").read_text())
    settings = next(node for node in tree.body if getattr(node, "name", "") == "Settings")
    for node, after in zip(settings.body, [*settings.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            default = ast.unparse(node.value).strip("'").replace("versions.CHAMPION", "champion")
            shown = "none" if default == "None" else f"`{default}`"
            text = _one_line(_docstring(after))
            yield f"| `API_{node.target.id.upper()}` | {shown} | {text} |"


def _docstring(node: ast.stmt | None) -> str:
    """Return the text of a statement that is a text alone: the docstring of the field above it."""
    value = node.value if isinstance(node, ast.Expr) else None
    return str(value.value) if isinstance(value, ast.Constant) else ""


def write_routes() -> Iterator[str]:
    """Yield a table of the routes of the REST server."""
    yield "| route | what it does |"
    yield "|---|---|"
    tree = ast.parse((ROOT / "serving/api.py").read_text())
    for function in (node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)):
        routes = [_route(word) for word in function.decorator_list if isinstance(word, ast.Call)]
        if routes:
            text = _one_line(ast.get_docstring(function) or "")
            yield f"| {', '.join(f'`{route}`' for route in reversed(routes))} | {text} |"


def _route(decorator: ast.Call) -> str:
    return f"{ast.unparse(decorator.func).partition('.')[2].upper()} {_first_argument(decorator)}"


def _first_argument(call: ast.Call) -> str:
    return str(ast.literal_eval(call.args[0]))


def _modules() -> Iterator[tuple[Path, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def _first_paragraph(model: type[BaseModel]) -> str:
    own = model.__dict__.get("__doc__")
    return _one_line(inspect.cleandoc(own).partition("\n\n")[0]) if own else ""


def _one_line(text: str) -> str:
    """Return a text that fits a cell of a table; what looks like a tag is no tag."""
    line = " ".join(text.split()).replace("|", "\\|")
    return "".join(
        part if part.startswith("`") else part.replace("<", "&lt;")
        for part in re.split(r"(`[^`]*`)", line)
    )


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "architectures": write_architectures,
    "backbones": write_backbones,
    "columns": write_columns,
    "options": write_options,
    "params": write_params,
    "routes": write_routes,
    "settings": write_settings,
    "targets": write_targets,
}
