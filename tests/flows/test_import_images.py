"""An import is checked first, loses no image, and leaves all as it was if it fails."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML
from sklearn.datasets import load_digits

from flows import import_images
from tasks.errors import UserError
from tasks.quality.layout import FolderLayout
from tests.support import ROOT
from tests.support import toy_pipeline as toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a DVC project that imported its folder `images`."""
    root = tmp_path_factory.mktemp("source")
    (root / "data").mkdir(parents=True)
    toy.git(root, "init", "--quiet")
    toy.dvc(root, "init", "--quiet")
    add_images(root / "images", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        import_images.replace_images("images")
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a copy of `template`."""
    root = tmp_path / "project"
    shutil.copytree(template, root, symlinks=True)
    monkeypatch.chdir(root)
    return root


def add_images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{folder} {name}")
    return folder


def raw() -> list[str]:
    return sorted(
        str(path.relative_to("data/raw")) for path in Path("data/raw").rglob("*") if path.is_file()
    )


def state() -> tuple[bytes, list[str]]:
    return Path("data/raw.dvc").read_bytes(), raw()


def test_a_local_folder_is_imported_and_replaced(project: Path, tmp_path: Path) -> None:
    assert raw() == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]
    assert "path: ../images\n" in Path("data/raw.dvc").read_text()  # right for every clone
    add_images(tmp_path / "others", "bird/1.jpg")
    import_images.replace_images("../others")
    assert raw() == ["bird/1.jpg"]
    assert sorted(path.name for path in Path("data").iterdir()) == [".gitignore", "raw", "raw.dvc"]


def test_a_folder_of_a_git_repository_is_imported_and_followed(
    project: Path, tmp_path: Path
) -> None:
    origin = add_images(tmp_path / "origin", "set/cat/1.jpg")
    toy.git(origin, "init", "--quiet", "--initial-branch=main")
    toy.git(origin, "add", ".")
    toy.git(origin, "commit", "--quiet", "--message", "one")
    import_images.replace_images(f"git+{origin}#set")
    assert raw() == ["cat/1.jpg"]
    assert import_images.update_images() == ""
    add_images(origin, "set/cat/2.jpg")
    toy.git(origin, "add", ".")
    toy.git(origin, "commit", "--quiet", "--message", "two")
    assert import_images.update_images() == "data/raw: 2 files, 1 before"
    assert raw() == ["cat/1.jpg", "cat/2.jpg"]


def test_an_import_asks_its_source(project: Path) -> None:
    assert import_images.update_images() == ""
    add_images(project / "images", "dog/2.jpg")
    assert import_images.update_images() == "data/raw: 4 files, 3 before"
    assert raw() == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"]


def test_a_missing_copy_is_fetched(project: Path) -> None:
    shutil.rmtree("data/raw")
    shutil.rmtree(".dvc/cache")
    import_images.update_images()
    assert raw() == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]


def test_a_folder_tracked_by_dvc_add_records_what_changed(project: Path) -> None:
    Path("data/raw.dvc").unlink()
    toy.dvc(project, "add", "data/raw")
    add_images(project / "data/raw", "cat/3.jpg")
    assert import_images.update_images() == "data/raw: 4 files, 3 before"
    assert YAML(typ="safe").load(Path("data/raw.dvc"))["outs"][0]["nfiles"] == 4
    assert raw() == ["cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "dog/1.jpg"]


def test_the_digits_of_scikit_learn_are_written_and_tracked(project: Path) -> None:
    import_images.replace_images("sklearn:digits")
    counts = {
        folder.name: len(list(folder.glob("*.png")))
        for folder in sorted(Path("data/raw").iterdir())
    }
    assert counts == dict(
        zip("0123456789", (178, 182, 177, 183, 181, 182, 181, 179, 174, 180), strict=True)
    )
    with Image.open("data/raw/0/0000.png") as image:
        assert (image.mode, image.size) == ("L", (8, 8))
        assert (np.asarray(image) == np.round(load_digits().images[0] * 255 / 16)).all()
    assert "deps" not in YAML(typ="safe").load(Path("data/raw.dvc"))


@pytest.mark.parametrize(
    "act",
    [import_images.update_images, lambda: import_images.replace_images("images")],
    ids=["update", "replace"],
)
def test_unrecorded_files_are_refused_listed_and_kept(
    project: Path, act: Callable[[], object]
) -> None:
    add_images(project / "data/raw", "cat/dropped.jpg", "new/1.jpg")
    (project / "data/raw/dog/1.jpg").unlink()  # an imported file may be a link to a shared cache
    (project / "data/raw/dog/1.jpg").write_text("edited")
    before = state()
    with pytest.raises(UserError, match="3 files in data/raw are new or changed there") as refused:
        act()
    assert all(
        name in str(refused.value)
        for name in ("cat/dropped.jpg", "new/1.jpg", "dog/1.jpg", "Move them")
    )
    assert state() == before


def test_every_offender_of_a_folder_is_named_at_once(project: Path, tmp_path: Path) -> None:
    images = project / "images"
    before = state()
    (images / "cat/dangling").symlink_to("nowhere")
    (images / "cat/leaving").symlink_to(add_images(tmp_path / "elsewhere", "x.jpg") / "x.jpg")
    (images / "cat/leaving_folder").symlink_to(tmp_path / "elsewhere")
    (images / "cat/within").symlink_to("1.jpg")
    os.mkfifo(images / "dog/pipe")
    (images / "dog/.dvcignore").write_text("*.jpg")
    Path(os.fsdecode(os.fsencode(images / "dog") + b"/caf\xe9.jpg")).write_text("x")
    with pytest.raises(UserError, match="6 entries cannot be versioned") as refused:
        import_images.replace_images("images")
    for line in (
        "cat/dangling: a link to nowhere, which does not exist",
        "cat/leaving: a link out of the folder",
        "cat/leaving_folder: a link out of the folder",
        "dog/pipe: neither a file nor a folder",
        "dog/.dvcignore: within this project it would hide images",
        r"dog/caf\xe9.jpg: the name is not UTF-8",
    ):
        assert line in str(refused.value)
    assert state() == before


def test_unreadable_files_and_folders_are_named() -> None:
    """Root reads everything, so a child process without its rights checks the folder."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        images = add_images(Path(folder) / "images", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
        (images / "cat/2.jpg").chmod(0)
        (images / "dog").chmod(0)
        code = (
            "import os, sys\nfrom flows.check_source import check_source\n"
            "os.getuid() or os.setuid(65534)\ncheck_source(sys.argv[1])"
        )
        child = subprocess.run(
            [sys.executable, "-c", code, str(images)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        (images / "dog").chmod(0o755)
    assert "2 entries cannot be versioned" in child.stderr
    assert "cat/2.jpg: not readable: permission denied" in child.stderr
    assert "dog: the folder cannot be opened (Permission denied)" in child.stderr


def test_litter_is_left_out_of_the_import_and_of_its_updates(project: Path, tmp_path: Path) -> None:
    images = add_images(tmp_path / "elsewhere", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    add_images(
        images,
        "cat/.hidden.jpg",
        "__MACOSX/cat/._1.jpg",
        ".git/HEAD",
        ".dvc/config",
        "dog/Thumbs.db",
    )
    (images / ".dvcignore").write_text("*1*.jpg\n")
    import_images.replace_images("../elsewhere")
    assert raw() == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]
    add_images(images, "cat/.another.jpg")
    assert import_images.update_images() == ""
    add_images(images, "dog/2.jpg")
    assert import_images.update_images() == "data/raw: 4 files, 3 before"


def test_a_layout_that_is_not_clear_is_refused_before_anything_is_copied(
    project: Path, tmp_path: Path
) -> None:
    before = state()
    add_images(
        tmp_path / "sites", *(f"{site}/{label}/1.jpg" for site in "ab" for label in ("yes", "no"))
    )
    with pytest.raises(
        UserError, match=r"sites: a, b hold folders of the same names .*in more than one way"
    ):
        import_images.replace_images("../sites")
    assert state() == before
    (project / "params.yaml").write_text("validate: {layout: {depth: 1}}\n")
    import_images.replace_images("../sites")
    assert len(raw()) == 4


def test_pointers_of_git_lfs_are_refused(project: Path, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (add_images(tmp_path / "lfs", f"{label}/1.jpg") / label / "1.jpg").write_text(
            "version https://git-lfs.github.com/spec/v1"
        )
    with pytest.raises(
        UserError, match="2 files are pointers of Git LFS, such as .*; run `git lfs pull`"
    ):
        import_images.replace_images("../lfs")


def test_what_is_imported_is_shown_and_may_be_declined(
    project: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture,
) -> None:
    before = state()
    add_images(
        tmp_path / "parts",
        *(f"{part}/{label}/1.jpg" for part in ("train", "test_set") for label in ("cat", "dog")),
    )

    def decline(layout: FolderLayout) -> bool:
        import_images.print_layout(layout)
        return False

    with caplog.at_level("INFO"):
        import_images.replace_images("../parts", decline)
    assert "splits: test_set → test, train → training" in caplog.text
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert rows[0] == ["class", "training", "test"]
    assert rows[2:] == [["cat", "1", "1"], ["dog", "1", "1"], ["2", "classes", "2", "2"]]
    assert state() == before


def test_a_failed_import_leaves_all_as_it_was_even_after_a_killed_one(
    project: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    before = state()
    for address, message in {
        "nothing": "no such folder",
        "images/cat/1.jpg": "expected a folder of images in class folders, received a file",
        "https://example.org/images": "cannot be listed over HTTP",
        "../empty": "is empty",
        "data/raw": "this is the imported copy",
        "sklearn:faces": "no such set; known is sklearn:digits",
        "git+images": "received no folder",
    }.items():
        with pytest.raises(UserError, match=message):
            import_images.replace_images(address)
        assert state() == before
    Path("data/before").mkdir()
    for name in ("raw", "raw.dvc"):
        Path("data", name).rename(f"data/before/{name}")
    add_images(Path("data/raw"), "half.png")  # so far a killed import has come
    with pytest.raises(UserError, match="could not be imported, the images are as before"):
        import_images.replace_images("git+images#set")
    assert state() == before
    assert sorted(path.name for path in Path("data").iterdir()) == [".gitignore", "raw", "raw.dvc"]


def test_an_import_that_was_killed_at_its_very_end_has_ended(project: Path) -> None:
    before = state()
    add_images(Path("data/replaced/raw"), "cat/old.jpg")  # what it was about to delete
    assert import_images.update_images() == ""
    assert state() == before and not Path("data/replaced").exists()


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, OSError("no space left on device")], ids=["interrupt", "full disk"]
)
def test_an_import_that_ends_half_way_leaves_all_as_it_was(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = state()

    def fail(folder: Path) -> None:
        add_images(folder, "0/half.png")
        raise error

    monkeypatch.setattr(import_images, "write_digits", fail)
    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        import_images.replace_images("sklearn:digits")
    assert state() == before


def test_no_pointer_says_how_to_bring_images(project: Path) -> None:
    Path("data/raw.dvc").unlink()
    with pytest.raises(UserError, match="make data FROM="):
        import_images.update_images()


def test_the_command_ends_in_one_message(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, message in (
        (["nothing"], "^error: nothing: no such folder"),
        ([], "^usage: make data FROM="),
    ):
        monkeypatch.setattr(sys, "argv", ["import_images", *arguments])
        with pytest.raises(SystemExit, match=message):
            import_images.main()
