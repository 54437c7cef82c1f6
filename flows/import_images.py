"""Where the raw images come from: looked at, imported, and asked for changes, without losing one.

`python -m flows.import_images FROM` replaces the import of `data/raw`. FROM is a local folder, an address of a storage that
DVC knows (s3://…, gs://…, ssh://…), a folder of a Git repository: git+<repository>#<folder>, or a set that a library
brings along: sklearn:digits.
"""

import logging
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from flows.graph import DvcError, ask_dvc, open_project
from flows.links import mend_links
from tasks.errors import UserError, exit_with_message
from tasks.tracking.store import refuse_percent_sign

RAW = Path("data/raw")
POINTER = Path("data/raw.dvc")
NAMED = 20  # offenders that a message lists
DIGITS = "sklearn:digits"

log = logging.getLogger(__name__)


def replace(source: str) -> None:
    """Import `source` as `data/raw` in place of what is there. Raises `UserError` and leaves all as it was."""
    check(source)
    command = _command(source)
    _bring_back()
    mend_links()
    refuse_unrecorded()
    with _put_aside():
        try:
            if source == DIGITS:
                write_digits(RAW)
            ask_dvc(*command)
        except DvcError as error:
            raise UserError(f"{source}: could not be imported, the images are as before: {error}") from error
    log.info("data/raw holds %d files of %s", sum(1 for path in RAW.rglob("*") if path.is_file()), source)


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 handwritten digits as grey PNG files of 8 x 8 pixels, `<digit>/<index>.png`."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = (digits.images * (255 / 16)).round().astype("uint8")  # they come in 17 shades
    for index, (pixels, digit) in enumerate(zip(grey, digits.target, strict=True)):
        path = folder / str(digit) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@contextmanager
def _put_aside() -> Iterator[None]:
    """Have neither images nor pointer while open; an error or an interrupt brings both back."""
    for path in (RAW, POINTER):
        if path.exists():
            path.rename(_before(path))
    try:
        yield
    except BaseException:
        for path in (RAW, POINTER):
            _remove(path)
        _bring_back()
        raise
    for path in (POINTER, RAW):
        _remove(_before(path))


def _bring_back() -> None:
    """Undo an import that did not end, in this call or, killed, in an earlier one."""
    for path in (POINTER, RAW):
        if _before(path).exists():
            _remove(path)
            _before(path).rename(path)


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def update() -> str:
    """Bring `data/raw` and its pointer up to date, and return what changed, or "".

    An import asks its source, a folder tracked by `dvc add` records its changes.
    """
    if not POINTER.exists():
        raise UserError(f"{POINTER} is missing: bring images with `make data FROM=<folder>`")
    before = _recorded()
    _update()
    after = _recorded()
    return "" if before == after else f"{RAW}: {after.get('nfiles')} files, {before.get('nfiles')} before"


def _recorded() -> dict:
    return YAML(typ="safe").load(POINTER)["outs"][0]


def _update() -> None:
    pointer = YAML(typ="safe").load(POINTER)
    if "deps" not in pointer:
        ask_dvc("add", str(RAW))
        return
    refuse_unrecorded()
    dependency = pointer["deps"][0]
    if "repo" not in dependency and "://" not in dependency["path"]:
        check(str(POINTER.parent / dependency["path"]))
    if not RAW.exists():
        log.info("fetching the images of %s", dependency["path"])
    with open_project() as project:
        project.update([str(POINTER)])


def refuse_unrecorded() -> None:
    """Raise `ValueError` naming the files in `data/raw` that DVC has no record of: an update would delete them."""
    if not (RAW.exists() and POINTER.exists()):
        return
    with open_project() as project:
        changes = project.data_status([str(RAW)], granular=True)["uncommitted"]
    files = [path for kind in ("added", "modified") for path in changes.get(kind, []) if not path.endswith("/")]
    if files:
        raise UserError(
            _listed(f"{len(files)} files in {RAW} are new or changed there, and an update would lose them", sorted(files))
            + "\nMove them to the folder the images are imported from, and run again."
        )


def check(source: str) -> None:
    """Raise `ValueError` naming everything in a local folder that DVC would choke on or follow out of it."""
    if source == DIGITS:
        return
    if source.startswith("sklearn:"):
        raise UserError(f"{source}: no such set; known is {DIGITS}")
    if source.startswith(("http://", "https://")):
        raise UserError(f"{source}: a folder cannot be listed over HTTP; use a local folder, s3://… or git+<repository>#<folder>")
    if "://" in source or source.startswith("git+"):
        return
    folder = Path(source)
    if not folder.exists():
        raise UserError(f"{source}: no such folder; expected images in class folders")
    if not folder.is_dir():
        raise UserError(f"{source}: expected a folder of images in class folders, received a file")
    if folder.resolve() == RAW.resolve():
        raise UserError(f"{source}: is the copy itself; name the folder the images come from")
    problems = sorted(_problems(folder))
    if problems:
        raise UserError(
            _listed(f"{source}: {len(problems)} entries cannot be versioned", problems) + "\nMend or remove them, and run again."
        )
    if not any(path.is_file() for path in folder.rglob("*")):
        raise UserError(f"{source}: is empty; expected images in class folders")


def _problems(folder: Path) -> Iterator[str]:
    root = folder.resolve()
    refused: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=refused.append):
        for name in [*folders, *files]:
            problem = _problem(Path(parent, name), root)
            if problem:
                yield f"{os.fsencode(Path(parent, name)).decode('utf-8', 'backslashreplace')}: {problem}"
    for error in refused:
        yield f"{error.filename}: the folder cannot be opened ({error.strerror})"


def _problem(path: Path, root: Path) -> str | None:
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


def _listed(title: str, lines: list[str]) -> str:
    more = [f"… and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    return "\n  ".join([f"{title}:", *lines[:NAMED], *more])


def _command(source: str) -> list[str]:
    if source == DIGITS:
        return ["add", str(RAW)]
    if source.startswith("git+"):
        repository, _, folder = source.removeprefix("git+").partition("#")
        if not folder:
            raise UserError(f"{source}: expected git+<repository>#<folder>, received no folder")
        return ["import", repository, folder, "--out", str(RAW)]
    return ["import-url", source if "://" in source else _as_dvc_reads_it(Path(source).resolve()), str(RAW)]


def _as_dvc_reads_it(folder: Path) -> str:
    """DVC takes a relative path from the folder of the pointer; one within the project stays right when that moves."""
    inside = folder.is_relative_to(Path.cwd())
    return os.path.relpath(folder, RAW.parent.resolve()) if inside else str(folder)


def main() -> None:
    """Replace the images by those of the folder named on the command line."""
    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("usage: make data FROM=<folder | s3://… | git+repository#folder | sklearn:digits>")
    with exit_with_message():
        refuse_percent_sign()
        replace(sys.argv[1])


if __name__ == "__main__":
    main()
