"""The routes of the REST server, and its settings. The code is read and not imported."""

import ast
import itertools
from collections.abc import Iterator

from docs.generate.source import ROOT, one_line


def write_routes() -> Iterator[str]:
    """Yield a table of the routes of the REST server."""
    yield "| route | what it does |"
    yield "|---|---|"
    tree = ast.parse((ROOT / "serving/api.py").read_text())
    for function in (node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)):
        routes = [_route(word) for word in function.decorator_list if isinstance(word, ast.Call)]
        if routes:
            text = one_line(ast.get_docstring(function) or "")
            yield f"| {', '.join(f'`{route}`' for route in reversed(routes))} | {text} |"


def _route(decorator: ast.Call) -> str:
    return f"{ast.unparse(decorator.func).partition('.')[2].upper()} {_first_argument(decorator)}"


def _first_argument(call: ast.Call) -> str:
    return str(ast.literal_eval(call.args[0]))


def write_settings() -> Iterator[str]:
    """Yield a table of the environment variables that set the REST server."""
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    tree = ast.parse((ROOT / "serving/settings.py").read_text())
    settings = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    for node, after in itertools.pairwise(settings.body):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            default = ast.unparse(node.value).strip("'").replace("versions.CHAMPION", "champion")
            shown = "none" if default == "None" else f"`{default}`"
            text = one_line(_docstring(after))
            yield f"| `API_{ast.unparse(node.target).upper()}` | {shown} | {text} |"


def _docstring(node: ast.stmt) -> str:
    """Return the text of a statement that is a text alone: the docstring of the field above it."""
    value = node.value if isinstance(node, ast.Expr) else None
    return str(value.value) if isinstance(value, ast.Constant) else ""
