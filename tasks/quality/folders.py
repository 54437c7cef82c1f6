"""What lies below a folder of images, but for litter."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tasks.quality.litter import is_litter

NO_IMAGE = re.compile(
    r"(?:licen[sc]e|readme|notice|changelog|authors|citation|makefile|checksums?)|"
    r".*\.(?:txt|csv|tsv|jsonl?|xml|md|rst|html?|pdf|ya?ml|toml|ini|cfg|log|py|ipynb|mat|np[yz]|h5|xlsx?|docx?|dvc|sh|db|sqlite|"
    r"names|data|cff|bib|zip|tar|gz|tgz|bz2|xz|7z|rar)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass
class Folder:
    """What lies in a folder: the names of its files, and its folders by name; without litter."""

    files: list[str] = field(default_factory=list)
    folders: dict[str, "Folder"] = field(default_factory=dict)

    @cached_property
    def images(self) -> list[str]:
        """The files in the folder itself that may be images, by their endings."""
        return [name for name in self.files if not NO_IMAGE.fullmatch(name)]

    @cached_property
    def with_images(self) -> dict[str, "Folder"]:
        """The folders in it that hold an image, at any depth."""
        return {
            name: folder
            for name, folder in self.folders.items()
            if folder.images or folder.with_images
        }


def look(root: Path) -> tuple[Folder, Counter[str]]:
    """Return all that lies below a folder but litter, and how often each kind of litter does. Links are followed."""
    tree = Folder()
    litter: Counter[str] = Counter()
    for parent, _, files in walk(root, litter):
        folder = tree
        for name in Path(parent).relative_to(root).parts:
            folder = folder.folders.setdefault(name, Folder())
        folder.files.extend(files)
    return tree, litter


def walk(
    root: Path, litter: Counter[str] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield as `os.walk` does, in order and without litter, which is counted. Links are followed."""
    for parent, folders, files in os.walk(root, followlinks=True):
        if litter is not None:
            litter.update(
                "._*" if name.startswith("._") else name
                for name in (*folders, *files)
                if is_litter(name)
            )
        folders[:] = sorted(name for name in folders if not is_litter(name))
        yield parent, folders, sorted(name for name in files if not is_litter(name))


def each_folder(folder: Folder, path: str = "") -> Iterator[tuple[str, Folder]]:
    """Yield each folder with its path, the outer ones first."""
    yield path, folder
    for name, inner in folder.folders.items():
        yield from each_folder(inner, join(path, name))


def join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
