"""The columns of each CSV file, from the dictionaries `…_COLUMNS` of the modules that write them.

The code is read and not imported: some of it imports TensorFlow, which takes seconds.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from docs.generate.source import ROOT, one_line, read_modules

PLACES = {  # tables whose names or folders dvc.yaml does not have
    "answers": "data/assessments/<folder>-<model>/predictions.csv",
    "folders": "data/assessments/<folder>-<model>/folders.csv",
    "suspects": "data/results/<architecture>/suspects.csv",
    "shared_suspects": "data/suspects.csv",
}


def write_columns() -> Iterator[str]:
    """Yield a chapter for each dictionary of columns that a module has, such as `FILES_COLUMNS`."""
    for name, columns in sorted(find_columns().items()):
        file = name.removesuffix("_COLUMNS").lower()
        yield f"\n## {file}\n"
        yield f"{' and '.join(f'`{place}`' for place in _places(file))}\n"
        yield "| column | meaning |"
        yield "|---|---|"
        yield from (f"| `{column}` | {one_line(text)} |" for column, text in columns.items())


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
        for _, tree in read_modules()
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
