"""Where the raw images come from: looked at, imported, and asked for changes, without losing one.

`python -m flows.source FROM` replaces the import of `data/raw`. FROM is a local folder, an address of a storage that
DVC knows (s3://…, gs://…, ssh://…), or a folder of a Git repository: git+<repository>#<folder>.
"""

import json
import logging
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from flows.graph import ask_dvc

RAW = Path("data/raw")
POINTER = Path("data/raw.dvc")
NAMED = 20  # offenders that a message lists

log = logging.getLogger(__name__)


def replace(source: str) -> None:
    """Import `source` as `data/raw` in place of what is there. Raises `ValueError` and leaves all as it was."""
    check(source)
    refuse_unrecorded()
    old = POINTER.read_bytes() if POINTER.exists() else None
    POINTER.unlink(missing_ok=True)
    aside = RAW.with_name("raw.before")
    if RAW.exists():
        RAW.rename(aside)
    try:
        ask_dvc(*_import_command(source))
    except RuntimeError as error:
        if RAW.exists():
            shutil.rmtree(RAW)
        if old is not None:
            POINTER.write_bytes(old)
        if aside.exists():
            aside.rename(RAW)
        raise ValueError(f"{source}: could not be imported, the images are as before: {error}") from error
    if aside.exists():
        shutil.rmtree(aside)
    log.info("data/raw holds %d files of %s", sum(1 for path in RAW.rglob("*") if path.is_file()), source)


def update() -> None:
    """Bring `data/raw` and its pointer up to date: an import asks its source, a tracked folder records what changed."""
    if not POINTER.exists():
        raise ValueError(f"{POINTER} is missing: bring images with `make data FROM=<folder>`")
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
    ask_dvc("update", str(POINTER))


def refuse_unrecorded() -> None:
    """Raise `ValueError` naming the files in `data/raw` that DVC has no record of: an update would delete them."""
    if not (RAW.exists() and POINTER.exists()):
        return
    changes = json.loads(ask_dvc("data", "status", "--granular", "--json", str(RAW))).get("uncommitted", {})
    files = [path for kind in ("added", "modified") for path in changes.get(kind, []) if not path.endswith("/")]
    if files:
        raise ValueError(
            _listed(f"{len(files)} files in {RAW} are new or changed there, and an update would lose them", sorted(files))
            + "\nMove them to the folder the images are imported from, and run again."
        )


def check(source: str) -> None:
    """Raise `ValueError` naming everything in a local folder that DVC would choke on or follow out of it."""
    if source.startswith(("http://", "https://")):
        raise ValueError(f"{source}: a folder cannot be listed over HTTP; use a local folder, s3://… or git+<repository>#<folder>")
    if "://" in source or source.startswith("git+"):
        return
    folder = Path(source)
    if not folder.exists():
        raise ValueError(f"{source}: no such folder; expected images in class folders")
    if not folder.is_dir():
        raise ValueError(f"{source}: expected a folder of images in class folders, received a file")
    if folder.resolve() == RAW.resolve():
        raise ValueError(f"{source}: is the copy itself; name the folder the images come from")
    problems = sorted(_problems(folder))
    if problems:
        raise ValueError(
            _listed(f"{source}: {len(problems)} entries cannot be versioned", problems) + "\nMend or remove them, and run again."
        )
    if not any(path.is_file() for path in folder.rglob("*")):
        raise ValueError(f"{source}: is empty; expected images in class folders")


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


def _import_command(source: str) -> list[str]:
    if source.startswith("git+"):
        repository, _, folder = source.removeprefix("git+").partition("#")
        if not folder:
            raise ValueError(f"{source}: expected git+<repository>#<folder>, received no folder")
        return ["import", repository, folder, "--out", str(RAW)]
    return ["import-url", source, str(RAW)]


def main() -> None:
    """Replace the images by those of the folder named on the command line."""
    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("usage: make data FROM=<folder | s3://… | git+repository#folder>")
    try:
        replace(sys.argv[1])
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
