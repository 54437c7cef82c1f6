"""The tree of files and folders below a folder of images, without junk files."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tasks.quality.junk import is_junk

NO_IMAGE = re.compile(
    r"(?:licen[sc]e|readme|notice|changelog|authors|citation|makefile|checksums?)|"
    r".*\.(?:txt|csv|tsv|jsonl?|xml|md|rst|html?|pdf|ya?ml|toml|ini|cfg|log|py|ipynb|mat|np[yz]|"
    r"h5|xlsx?|docx?|dvc|sh|db|sqlite|names|data|cff|bib|zip|tar|gz|tgz|bz2|xz|7z|rar)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass
class Folder:
    """The names of the files in a folder, and its folders by name."""

    files: list[str] = field(default_factory=list)
    folders: dict[str, "Folder"] = field(default_factory=dict)

    @cached_property
    def images(self) -> list[str]:
        """The files in this folder that may be images, by their endings."""
        return [name for name in self.files if not NO_IMAGE.fullmatch(name)]

    @cached_property
    def with_images(self) -> dict[str, "Folder"]:
        """The folders in this folder that hold an image at any depth."""
        return {
            name: folder
            for name, folder in self.folders.items()
            if folder.images or folder.with_images
        }


def read_tree(root: Path) -> tuple[Folder, Counter[str]]:
    """Return the tree below a folder, and how often each kind of junk occurs in it."""
    tree = Folder()
    junk: Counter[str] = Counter()
    for parent, _, files in walk(root, junk):
        folder = tree
        for name in Path(parent).relative_to(root).parts:
            folder = folder.folders.setdefault(name, Folder())
        folder.files.extend(files)
    return tree, junk


def walk(
    root: Path, junk: Counter[str] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield like `os.walk`, sorted and without junk, which is counted. Links are followed."""
    for parent, folders, files in os.walk(root, followlinks=True):
        if junk is not None:
            found = filter(is_junk, (*folders, *files))
            junk.update("._*" if name.startswith("._") else name for name in found)
        folders[:] = sorted(name for name in folders if not is_junk(name))
        yield parent, folders, sorted(name for name in files if not is_junk(name))


def list_folders(folder: Folder, path: str = "") -> Iterator[tuple[str, Folder]]:
    """Yield each folder with its path; outer folders come first."""
    yield path, folder
    for name, inner in folder.folders.items():
        yield from list_folders(inner, join(path, name))


def join(path: str, name: str) -> str:
    """Return the path of `name` in the folder `path`; "" is the root."""
    return f"{path}/{name}" if path else name
