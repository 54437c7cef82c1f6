"""Check a folder of images before its import: DVC's own message on a bad entry names no remedy."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import UserError
from tasks.imaging.kinds import LFS_POINTER
from tasks.params.read import PARAMS, read_section
from tasks.params.validate import Validate
from tasks.quality.folders import walk
from tasks.quality.junk import is_junk
from tasks.quality.layout import FolderLayout
from tasks.quality.read_layout import read_layout

RAW = Path("data/raw")
DIGITS = "sklearn:digits"
NAMED = 20  # entries that a message lists
POINTER_SIZE = 1024  # bytes; Git LFS writes smaller pointers


def check_source(source: str) -> FolderLayout | None:
    """Return the layout of a local folder, or None for a source that is not a local folder.

    Raises `UserError` that lists every entry that DVC cannot version.
    """
    if source == DIGITS:
        return None
    if source.startswith("sklearn:"):
        raise UserError(f"{source}: no such set; known is {DIGITS}")
    if source.startswith(("http://", "https://")):
        raise UserError(
            f"{source}: a folder cannot be listed over HTTP; "
            "use a local folder, s3://… or git+<repository>#<folder>"
        )
    if "://" in source or source.startswith("git+"):
        return None
    _refuse_no_folder(source)
    _refuse_entries(source)
    try:
        return read_layout(Path(source), read_validate_section())
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def read_validate_section() -> Validate:
    """Return the section `validate` of params.yaml, which settles an ambiguous layout."""
    return read_section("validate", Validate) if PARAMS.exists() else Validate()


def _refuse_no_folder(source: str) -> None:
    folder = Path(source)
    if not folder.exists():
        raise UserError(f"{source}: no such folder; expected images in class folders")
    if not folder.is_dir():
        raise UserError(f"{source}: expected a folder of images in class folders, received a file")
    if folder.resolve() == RAW.resolve():
        raise UserError(
            f"{source}: this is the imported copy; name the folder that the images come from"
        )


def _refuse_entries(source: str) -> None:
    problems = sorted(_find_problems(Path(source)))
    if problems:
        listed = list_some(f"{source}: {len(problems)} entries cannot be versioned", problems)
        raise UserError(f"{listed}\nMend or remove them, and run again.")
    files = [Path(parent, name) for parent, _, names in walk(Path(source)) for name in names]
    if not files:
        raise UserError(f"{source}: is empty; expected images in class folders")
    pointers = [path for path in files if _is_pointer(path)]
    if pointers:
        raise UserError(
            f"{source}: {len(pointers)} files are pointers of Git LFS, such as {pointers[0]}; "
            "run `git lfs pull` in their repository, and import again"
        )


def _find_problems(folder: Path) -> Iterator[str]:
    root = folder.resolve()
    if root.is_relative_to(Path.cwd()):
        for path in sorted((*root.rglob(".dvcignore"), *root.rglob(".dvc"))):
            yield f"{path}: within this project it would hide images from DVC"
    refused: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=refused.append):
        folders[:] = [name for name in folders if not is_junk(name)]
        for name in [*folders, *(name for name in files if not is_junk(name))]:
            path = Path(parent, name)
            problem = _find_problem(path, root)
            if problem:
                yield f"{os.fsencode(path).decode('utf-8', 'backslashreplace')}: {problem}"
    for error in refused:
        yield f"{error.filename}: the folder cannot be opened ({error.strerror})"


def _find_problem(path: Path, root: Path) -> str | None:
    """Return why DVC cannot version a file or folder, or None."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    if path.is_symlink():
        if not path.exists():
            return f"a link to {path.readlink()}, which does not exist"
        if not path.resolve().is_relative_to(root):
            return f"a link out of the folder, to {path.resolve()}"
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "neither a file nor a folder"
    if stat.S_ISREG(mode) and not os.access(path, os.R_OK):
        return "not readable: permission denied"
    return None


def _is_pointer(path: Path) -> bool:
    return path.stat().st_size < POINTER_SIZE and path.read_bytes().startswith(LFS_POINTER)


def list_some(title: str, lines: list[str]) -> str:
    """Return a title and its first lines, and the number of the others."""
    more = [f"… and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    return "\n  ".join([f"{title}:", *lines[:NAMED], *more])
