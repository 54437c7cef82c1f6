"""Import the raw images into `data/raw`, and update them from their source. No image is lost.

`python -m flows.import_images FROM` (`make data`) replaces the images. FROM is one of

    a local folder
    a storage that DVC knows         s3://…, gs://…, ssh://…
    a folder of a Git repository     git+<repository>#<folder>
    a set that a library contains    sklearn:digits
"""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from flows.check_source import DIGITS, RAW, check_source, list_some, read_validate_section
from flows.graph import DvcError, open_project, run_dvc
from flows.links import mend_links
from flows.project_lock import hold_lock
from tasks.errors import UserError, exit_with_message
from tasks.quality.junk import is_junk
from tasks.quality.layout import FolderLayout
from tasks.quality.read_layout import read_layout
from tasks.terminal import print_table
from tasks.tracking.store import refuse_percent_sign

if TYPE_CHECKING:
    from dvc.fs import FileSystem
    from dvc.repo import Repo
    from dvc.stage import Stage

POINTER = Path("data/raw.dvc")
BEFORE = Path("data/before")  # the old images and pointer, during an import
REPLACED = Path("data/replaced")  # the same, after the import
ROWS = 40  # classes in the table of an import
SPLITS = ("training", "", "validation", "test")

log = logging.getLogger(__name__)


def replace_images(source: str, confirm: Callable[[FolderLayout], bool] = lambda _: True) -> None:
    """Import `source` as `data/raw` in place of the images there, if `confirm` accepts its layout.

    Raises `UserError` and leaves the images as they were.
    """
    layout = check_source(source)
    command = _make_command(source)
    _bring_back()
    mend_links()
    refuse_unrecorded()
    if layout is not None and not confirm(layout):
        log.info("nothing was imported, the images are as before")
        return
    with _put_aside():
        try:
            _import(source, command)
        except DvcError as error:
            message = f"{source}: could not be imported, the images are as before: {error}"
            raise UserError(message) from error
        if layout is None:
            print_layout(read_layout(RAW, read_validate_section()))
    count = sum(1 for path in RAW.rglob("*") if path.is_file())
    log.info("data/raw holds %d files of %s", count, source)


def _make_command(source: str) -> list[str]:
    """Return the DVC command that imports a source."""
    if source == DIGITS:
        return ["add", str(RAW)]
    if source.startswith("git+"):
        repository, _, folder = source.removeprefix("git+").partition("#")
        if not folder:
            raise UserError(f"{source}: expected git+<repository>#<folder>, received no folder")
        return ["import", repository, folder, "--out", str(RAW)]
    address = source if "://" in source else _relative_to_pointer(Path(source).resolve())
    return ["import-url", address, str(RAW)]


def _relative_to_pointer(folder: Path) -> str:
    """Return a folder within this project relative to the pointer, as DVC reads it.

    It stays valid when the project moves. Other folders are absolute.
    """
    inside = folder.is_relative_to(Path.cwd())
    return os.path.relpath(folder, RAW.parent.resolve()) if inside else str(folder)


def _import(source: str, command: list[str]) -> None:
    if source == DIGITS:
        write_digits(RAW)
    if command[0] != "import-url" or "://" in source:
        run_dvc(*command)
        return
    with open_project() as project:
        stage = project.imp_url(command[1], command[2], no_exec=True)
        _fetch(project, stage)


def _fetch(project: "Repo", stage: "Stage") -> None:
    """Let DVC fetch a local import again, without junk."""
    stage.frozen = True
    stage.deps[0].fs = _open_without_junk()
    with project.lock:
        stage.update()
        stage.dump()


def _open_without_junk() -> "FileSystem":
    """Return DVC's local file system, without junk.

    Junk includes `.dvcignore`: DVC refuses to import a folder that contains one.
    """
    from dvc.fs import LocalFileSystem

    class WithoutJunk(LocalFileSystem):
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

    return WithoutJunk()


def print_layout(layout: FolderLayout) -> None:
    """Print the layout of a folder, and the number of images of each class in each split."""
    for note in layout.notes:
        log.info("%s", note)
    splits = [split for split in SPLITS if any(split == one for one, _ in layout.counts)]
    labels = sorted({label for _, label in layout.counts})
    counts = [[layout.counts.get((split, label), 0) for split in splits] for label in labels]
    sums = [sum(column) for column in zip(*counts, strict=True)]
    shown = dict(zip(labels[:ROWS], counts, strict=False)) | {f"{len(labels)} classes": sums}
    names = ["images" if splits == [""] else split or "training" for split in splits]
    rows = [[label, *map(str, numbers)] for label, numbers in shown.items()]
    print_table(["class", *names], rows)
    if len(labels) > ROWS:
        log.info("the last row also counts %d classes that are not listed", len(labels) - ROWS)


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 handwritten digits as grey PNG files of 8 x 8 pixels.

    A file is named `<digit>/<index>.png`.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = (digits.images * (255 / 16)).round().astype("uint8")  # they have 17 shades
    for index, (pixels, digit) in enumerate(zip(grey, digits.target, strict=True)):
        path = folder / str(digit) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@contextmanager
def _put_aside() -> Iterator[None]:
    """Move images and pointer away until the block ends; an error or interrupt restores them."""
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
    BEFORE.rename(REPLACED)  # the new images are complete: a kill from here on keeps them
    shutil.rmtree(REPLACED)


def _bring_back() -> None:
    """Undo an import that failed in this process, or was killed in an earlier one."""
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


def update_images() -> str:
    """Bring `data/raw` and its pointer up to date, and return the change in words, or "".

    An import is updated from its source. For a folder tracked by `dvc add` the changes are
    recorded.
    """
    _bring_back()
    if not POINTER.exists():
        raise UserError(f"{POINTER} is missing: bring images with `make data FROM=<folder>`")
    before = _read_record()
    _update()
    after = _read_record()
    if before == after:
        return ""
    return f"{RAW}: {after.get('nfiles')} files, {before.get('nfiles')} before"


def _read_record() -> dict:
    return YAML(typ="safe").load(POINTER)["outs"][0]


def _update() -> None:
    pointer = YAML(typ="safe").load(POINTER)
    if "deps" not in pointer:
        run_dvc("add", str(RAW))
        return
    refuse_unrecorded()
    dependency = pointer["deps"][0]
    is_local = "repo" not in dependency and "://" not in dependency["path"]
    if is_local:
        check_source(str(POINTER.parent / dependency["path"]))
    if not RAW.exists():
        log.info("fetching the images of %s", dependency["path"])
    with open_project() as project:
        if is_local:
            _fetch(project, project.stage.get_target(str(POINTER)))
        else:
            project.update([str(POINTER)])


def refuse_unrecorded() -> None:
    """Raise `UserError` if DVC has no record of files in `data/raw`: an update deletes them."""
    if not (RAW.exists() and POINTER.exists()):
        return
    with open_project() as project:
        changes = project.data_status([str(RAW)], granular=True)["uncommitted"]
    found = [*changes.get("added", []), *changes.get("modified", [])]
    files = sorted(path for path in found if not path.endswith("/"))
    if files:
        title = (
            f"{len(files)} files in {RAW} are new or changed there, and an update would lose them"
        )
        raise UserError(
            f"{list_some(title, files)}\n"
            "Move them to the folder that the images are imported from, and run again."
        )


def ask_user(layout: FolderLayout) -> bool:
    """Show the layout, and ask on a terminal whether to import the images."""
    print_layout(layout)
    if "--yes" in sys.argv or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    return input("Import these images? [Y/n] ").strip().casefold() in ("", "y", "yes")


def main() -> None:
    """Replace the images by the images of the given source; `--yes` skips the question."""
    logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stdout, force=True)
    for name in ("flows", "tasks", __name__):
        logging.getLogger(name).setLevel("INFO")
    sources = [word for word in sys.argv[1:] if word != "--yes"]
    if len(sources) != 1 or not sources[0]:
        sys.exit(
            "usage: make data FROM=<folder | s3://… | git+repository#folder | sklearn:digits>\n"
            "       ARGS=--yes skips the question"
        )
    with exit_with_message(), hold_lock("refuse"):
        refuse_percent_sign()
        replace_images(sources[0], ask_user)


if __name__ == "__main__":
    main()
