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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from flows.graph import DvcError, ask_dvc, open_project
from flows.links import mend_links
from flows.project_lock import hold_lock
from tasks.errors import UserError, exit_with_message
from tasks.imaging.kinds import LFS_POINTER
from tasks.params.read import PARAMS, read_section
from tasks.params.validate import Validate
from tasks.quality.folders import walk
from tasks.quality.junk import is_junk
from tasks.quality.layout import FolderLayout
from tasks.quality.read_layout import read_layout
from tasks.tracking.store import refuse_percent_sign

if TYPE_CHECKING:
    from dvc.fs import FileSystem
    from dvc.repo import Repo
    from dvc.stage import Stage

RAW = Path("data/raw")
POINTER = Path("data/raw.dvc")
BEFORE = Path("data/before")  # images and pointer, while others are imported
REPLACED = Path("data/replaced")  # the same, once they are
NAMED = 20  # offenders that a message lists
ROWS = 40  # classes that the table of an import lists
POINTER_SIZE = 1024  # bytes; Git LFS writes pointers of less
DIGITS = "sklearn:digits"

log = logging.getLogger(__name__)


def replace(source: str, agree: Callable[[FolderLayout], bool] = lambda _: True) -> None:
    """Import `source` as `data/raw` in place of what is there, if `agree` says so of how its images lie.

    Raises `UserError` and leaves all as it was.
    """
    layout = check(source)
    command = _command(source)
    _bring_back()
    mend_links()
    refuse_unrecorded()
    if layout is not None and not agree(layout):
        log.info("nothing was imported, the images are as before")
        return
    with _put_aside():
        try:
            _import(source, command)
        except DvcError as error:
            raise UserError(
                f"{source}: could not be imported, the images are as before: {error}"
            ) from error
        if layout is None:
            describe(read_layout(RAW, _settings()))
    log.info(
        "data/raw holds %d files of %s", sum(1 for path in RAW.rglob("*") if path.is_file()), source
    )


def _import(source: str, command: list[str]) -> None:
    if source == DIGITS:
        write_digits(RAW)
    if command[0] != "import-url" or "://" in source:
        ask_dvc(*command)
        return
    with open_project() as project:
        stage = project.imp_url(command[1], command[2], no_exec=True)
        _fetch(project, stage)


def _fetch(project: "Repo", stage: "Stage") -> None:
    """Have DVC fetch a local import anew, without litter: it refuses a folder that has a `.dvcignore` in it."""
    stage.frozen = True
    stage.deps[0].fs = _without_litter()
    with project.lock:
        stage.update()
        stage.dump()


def _without_litter() -> "FileSystem":
    """Return the local file system as DVC uses it, but for litter: DVC refuses a folder with a `.dvcignore` in it."""
    from dvc.fs import LocalFileSystem

    class WithoutLitter(LocalFileSystem):
        def walk(self, path: str, **options: object) -> Iterator[tuple[str, list, list]]:
            for parent, folders, files in super().walk(path, **options):
                for names in (folders, files):
                    for name in filter(is_junk, list(names)):
                        names.pop(name) if isinstance(names, dict) else names.remove(name)
                yield parent, folders, files

        def find(self, path: str, **options: object) -> Iterator[str]:
            return (
                f"{parent}{os.sep}{name}" for parent, _, files in self.walk(path) for name in files
            )

    return WithoutLitter()


def _settings() -> Validate:
    """Return the section `validate` of `params.yaml`, which says how the images lie where that is not clear."""
    return read_section("validate", Validate) if PARAMS.exists() else Validate()


def describe(layout: FolderLayout) -> None:
    """Log how the images lie, and how many there are of each class in each part."""
    import pandas as pd  # half a second, which those who only ask for changes do without

    for note in layout.notes:
        log.info("%s", note)
    table = pd.Series(layout.counts).unstack(0, fill_value=0)
    table = table[[part for part in ("training", "", "validation", "test") if part in table]]
    table.columns = [part or ("images" if table.shape[1] == 1 else "training") for part in table]
    sums = table.sum().rename(f"{len(table)} classes")
    log.info("\n%s\n", pd.concat([table.head(ROWS), sums.to_frame().T]).to_string())
    if len(table) > ROWS:
        log.info("of %d more classes the images are in the sums alone", len(table) - ROWS)


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
    BEFORE.mkdir()
    for path in (RAW, POINTER):
        if path.exists():
            path.rename(BEFORE / path.name)
    try:
        yield
    except BaseException:
        for path in (RAW, POINTER):
            _remove(path)
        _bring_back()
        raise
    BEFORE.rename(REPLACED)  # from here on the new images count, also if this is killed
    shutil.rmtree(REPLACED)


def _bring_back() -> None:
    """Undo an import that did not end, in this call or, killed, in an earlier one."""
    for path in (RAW, POINTER):
        if (BEFORE / path.name).exists():
            _remove(path)
            (BEFORE / path.name).rename(path)
    if BEFORE.exists():
        BEFORE.rmdir()
    _remove(REPLACED)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def update() -> str:
    """Bring `data/raw` and its pointer up to date, and return what changed, or "".

    An import asks its source, a folder tracked by `dvc add` records its changes.
    """
    _bring_back()
    if not POINTER.exists():
        raise UserError(f"{POINTER} is missing: bring images with `make data FROM=<folder>`")
    before = _recorded()
    _update()
    after = _recorded()
    return (
        ""
        if before == after
        else f"{RAW}: {after.get('nfiles')} files, {before.get('nfiles')} before"
    )


def _recorded() -> dict:
    return YAML(typ="safe").load(POINTER)["outs"][0]


def _update() -> None:
    pointer = YAML(typ="safe").load(POINTER)
    if "deps" not in pointer:
        ask_dvc("add", str(RAW))
        return
    refuse_unrecorded()
    dependency = pointer["deps"][0]
    is_local = "repo" not in dependency and "://" not in dependency["path"]
    if is_local:
        check(str(POINTER.parent / dependency["path"]))
    if not RAW.exists():
        log.info("fetching the images of %s", dependency["path"])
    with open_project() as project:
        if is_local:
            _fetch(project, project.stage.get_target(str(POINTER)))
        else:
            project.update([str(POINTER)])


def refuse_unrecorded() -> None:
    """Raise `UserError` naming the files in `data/raw` that DVC has no record of: an update would delete them."""
    if not (RAW.exists() and POINTER.exists()):
        return
    with open_project() as project:
        changes = project.data_status([str(RAW)], granular=True)["uncommitted"]
    files = [
        path
        for kind in ("added", "modified")
        for path in changes.get(kind, [])
        if not path.endswith("/")
    ]
    if files:
        raise UserError(
            _listed(
                f"{len(files)} files in {RAW} are new or changed there, and an update would lose them",
                sorted(files),
            )
            + "\nMove them to the folder the images are imported from, and run again."
        )


def check(source: str) -> FolderLayout | None:
    """Return how the images of a local folder lie, None where that is seen once they are here.

    Raises `UserError` naming everything in it that DVC would choke on or follow out of it.
    """
    if source == DIGITS:
        return None
    if source.startswith("sklearn:"):
        raise UserError(f"{source}: no such set; known is {DIGITS}")
    if source.startswith(("http://", "https://")):
        raise UserError(
            f"{source}: a folder cannot be listed over HTTP; use a local folder, s3://… or git+<repository>#<folder>"
        )
    if "://" in source or source.startswith("git+"):
        return None
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
            _listed(f"{source}: {len(problems)} entries cannot be versioned", problems)
            + "\nMend or remove them, and run again."
        )
    files = [Path(parent, name) for parent, _, names in walk(folder) for name in names]
    if not files:
        raise UserError(f"{source}: is empty; expected images in class folders")
    pointers = [path for path in files if _is_pointer(path)]
    if pointers:
        raise UserError(
            f"{source}: {len(pointers)} files are pointers of Git LFS, such as {pointers[0]}; "
            "run `git lfs pull` in their repository, and import again"
        )
    try:
        return read_layout(folder, _settings())
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def _problems(folder: Path) -> Iterator[str]:
    root = folder.resolve()
    if root.is_relative_to(Path.cwd()):
        for path in sorted((*root.rglob(".dvcignore"), *root.rglob(".dvc"))):
            yield f"{path}: within this project it would hide images from DVC"
    refused: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=refused.append):
        folders[:] = [name for name in folders if not is_junk(name)]
        for name in [*folders, *(name for name in files if not is_junk(name))]:
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


def _is_pointer(path: Path) -> bool:
    return path.stat().st_size < POINTER_SIZE and path.read_bytes().startswith(LFS_POINTER)


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
    return [
        "import-url",
        source if "://" in source else _as_dvc_reads_it(Path(source).resolve()),
        str(RAW),
    ]


def _as_dvc_reads_it(folder: Path) -> str:
    """DVC takes a relative path from the folder of the pointer; one within the project stays right when that moves."""
    inside = folder.is_relative_to(Path.cwd())
    return os.path.relpath(folder, RAW.parent.resolve()) if inside else str(folder)


def agree(layout: FolderLayout) -> bool:
    """Show how the images lie, and ask at a terminal whether they are to be imported."""
    describe(layout)
    if "--yes" in sys.argv or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    return input("Import these images? [Y/n] ").strip().casefold() in ("", "y", "yes")


def main() -> None:
    """Replace the images by those of the folder named on the command line; `--yes` asks nothing."""
    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
    sources = [word for word in sys.argv[1:] if word != "--yes"]
    if len(sources) != 1 or not sources[0]:
        sys.exit(
            "usage: make data FROM=<folder | s3://… | git+repository#folder | sklearn:digits> (ARGS=--yes asks nothing)"
        )
    with exit_with_message(), hold_lock("refuse"):
        refuse_percent_sign()
        replace(sources[0], agree)


if __name__ == "__main__":
    main()
