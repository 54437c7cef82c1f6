"""The folder layout of a set of images: the split and the class of every file."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tasks.quality.folder_names import list_names, read_label
from tasks.quality.folders import Folder, list_folders

Place = tuple[str, str]  # split and class


@dataclass(frozen=True)
class FolderLayout:
    """The folders of the splits, how deep the classes are below them, and notes for a person."""

    splits: Mapping[str, str]  # {folder: split}; "" if the folder belongs to no split
    depth: int = 0  # folders between a split's folder and its class folders
    label_from: str = "folder"
    aside: tuple[str, ...] = ()  # folders of images without a class
    notes: tuple[str, ...] = ()
    counts: Mapping[Place, int] = field(default_factory=dict)  # files that may be images

    def find_place(self, path: str) -> Place:
        """Return the split and the class of a file; the class is "" outside class folders."""
        names = PurePosixPath(path).parts
        for length in range(len(names) - 1, -1, -1):
            split = self.splits.get("/".join(names[:length]))
            if split is not None:
                return split, self._find_class(names[length:])
        return "", ""

    @property
    def expected(self) -> str:
        """The pattern of an image's path, in words."""
        if self.label_from == "name":
            return "expected <class>.<number>.<ending>, as in cat.12.jpg"
        folders = "<folder>/" * self.depth
        return f"expected {'<part>/' if any(self.splits.values()) else ''}{folders}<class>/<file>"

    def is_aside(self, path: str) -> bool:
        """Say whether a file is left aside: no model learns from it, and it may be predicted."""
        return any(path.startswith(f"{folder}/") for folder in self.aside)

    def _find_class(self, names: tuple[str, ...]) -> str:
        if self.label_from == "name":
            return read_label(names[-1])
        return names[self.depth] if len(names) > self.depth + 1 else ""


def note_splits(splits: Mapping[str, str]) -> tuple[str, ...]:
    """Note which folder became which split, unless there are no splits."""
    if len(splits) == 1 and set(splits.values()) == {""}:
        return ()
    found = [
        f"{path or 'the other folders'} → {split or 'training'}" for path, split in splits.items()
    ]
    return (f"splits: {', '.join(found)}",) if found else ()


def note_aside(aside: Iterable[str], tree: Folder) -> tuple[str, ...]:
    """Note how many images without a class are in each folder that is left aside."""
    known = dict(list_folders(tree))
    counts = {
        path: sum(len(inner.images) for _, inner in list_folders(known[path])) for path in aside
    }
    return tuple(
        f"{path} is left aside: its images ({count}) have no class; "
        f"`python -m serving.predict data/raw/{path}` predicts them"
        for path, count in counts.items()
    )


def note_empty(empty: Iterable[str]) -> tuple[str, ...]:
    """Note the names of folders that would be classes if they held an image."""
    names = sorted(empty)
    return (f"left out, because they hold no image: {list_names(names)}",) if names else ()


def note_junk(junk: Counter[str]) -> tuple[str, ...]:
    """Note the junk files and folders, and how often each occurs."""
    found = [f"{name} ({times})" if times > 1 else name for name, times in sorted(junk.items())]
    return (f"hidden or junk, left out: {list_names(found)}",) if found else ()
