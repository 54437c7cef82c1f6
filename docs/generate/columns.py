"""The columns of each CSV file, from the dictionaries `…_COLUMNS` of the modules that write them.

The code is read and not imported: some of it imports TensorFlow, which takes seconds.
"""

import ast
import re
from collections.abc import Iterator

from docs.generate.source import ROOT, one_line, read_modules

PLACES = {"folders": "data/assessments/<folder>-<model>/folders.csv"}  # dvc.yaml does not name it


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
    """Return where a table is written, as `dvc.yaml` and `PLACES` say."""
    written = set(re.findall(r"[\w$/{}]+\.csv", (ROOT / "dvc.yaml").read_text()))
    paths = sorted(path for path in written if path.endswith(f"/{table}.csv"))
    return [path.replace("${key}", "<architecture>") for path in paths] or [PLACES[table]]


def find_columns() -> dict[str, dict[str, str]]:
    """Return the dictionaries of columns of all modules, by their names."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for _, tree in read_modules()
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id.endswith("_COLUMNS")
        and isinstance(node.value, ast.Dict)
    }
