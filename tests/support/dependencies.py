"""The files that a stage imports, found with `ast` without running anything."""

import ast
from functools import cache
from pathlib import Path

from tests.support import ROOT

# Imports that never change a result: the checks for later stages, the ignored settings of a
# machine, and the files for displays and estimates.
NO_DEPENDENCY = {
    Path("tasks/stage.py"): {
        Path("tasks/machine.py"),
        Path("tasks/params/whole.py"),
        Path("tasks/progress.py"),
        Path("tasks/registry/requirements.py"),
    },
    Path("tasks/train.py"): {Path("tasks/progress.py")},
    Path("tasks/modeling/epoch_log.py"): {Path("tasks/progress.py")},
}
# Folders whose files are separate dependencies. Other rooms are dependencies as folders.
FLAT = (Path("tasks"), Path("tasks/params"))


@cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file of the project."""
    return ast.parse((ROOT / path).read_text(), str(path))


@cache
def imports(path: Path) -> frozenset[str]:
    """Return all modules that a file imports anywhere. `from a import b` gives `a` and `a.b`."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed here"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def local_imports(path: Path) -> set[Path]:
    """Return the files of this project that a file imports, without packages."""
    candidates = {Path(*name.split(".")).with_suffix(".py") for name in imports(path)}
    files = {candidate for candidate in candidates if (ROOT / candidate).is_file()}
    return files - NO_DEPENDENCY.get(path, set())


def needs(*paths: Path) -> set[Path]:
    """Return files and all that they import, directly and indirectly."""
    seen: set[Path] = set()
    waiting = list(paths)
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += local_imports(current)
    return seen


def code_of(stage: str) -> list[str]:
    """Return the code that a stage depends on: schemas and modules of `tasks/`, other rooms."""
    entry = [Path(f"tasks/{stage}.py")]
    if stage == "register":
        entry.append(Path("tasks/registry/pyfunc.py"))  # MLflow reads it
    return sorted({str(path if path.parent in FLAT else path.parent) for path in needs(*entry)})


def python_files(folder: str) -> list[Path]:
    """Return the Python files below a folder of the project."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py"))
