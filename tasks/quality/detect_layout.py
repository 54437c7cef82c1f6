"""Detect the folder layout from the names and the nesting of the folders.

Folders of splits (`train`, `Testing`, `val_images`, …) hold class folders. Without splits, the
class folders are at the top. Both may lie deeper, inside folders that hold nothing else. A set that
allows two readings is refused with the settings to choose from. A split taken for a class, or a set
that holds itself a second time, would give a fine score that is not true.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from tasks.errors import UserError
from tasks.quality.folder_names import (
    SPLITS,
    find_split,
    is_group,
    list_names,
    means_no_class,
    read_label,
)
from tasks.quality.folders import Folder, join
from tasks.quality.layout import FolderLayout, note_splits

ARCHIVE = re.compile(r".*\.(?:zip|tar|gz|tgz|bz2|xz|7z|rar)", re.IGNORECASE | re.DOTALL)
LABELS_ELSEWHERE = (
    "expected a folder for each class; labels in tables or JSON files are not read. Export the set "
    "as class folders, or, if the names of the files say the class (cat.12.jpg), set "
    "`validate: {label_from: name}` in params.yaml"
)


def detect_layout(tree: Folder, label_from: str) -> FolderLayout:
    """Return the only layout that the folders allow. Raises `UserError` if there are several."""
    path, top = unwrap("", tree)
    notes = (f"the images are in {path}/",) if path else ()
    if label_from == "name":
        splits = detect_splits(path, top) or {path: ""}
        return FolderLayout(splits, 0, "name", notes=(*notes, *note_splits(splits)))
    if not top.with_images:
        raise UserError(_describe_flat(top))
    layout = _read_split_folders(path, top) or _read_class_folders(path, top)
    return replace(layout, notes=(*notes, *layout.notes))


def detect_splits(path: str, top: Folder) -> dict[str, str]:
    """Return {folder: split} for the folders named like splits; {} without a training folder."""
    splits = {join(path, name): split for name, split in _name_splits(top.with_images).items()}
    return splits if "training" in splits.values() else {}


def unwrap(path: str, folder: Folder) -> tuple[str, Folder]:
    """Descend while only one folder holds images, until it may be a class or a split."""
    while len(folder.with_images) == 1:
        name, inner = next(iter(folder.with_images.items()))
        is_class = not inner.with_images and (
            folder.images or (not find_split(name) and not is_group(name))
        )
        if is_class or (inner.with_images and find_split(name) == "training"):
            break
        path, folder = join(path, name), inner
    return path, folder


def _unwrap_split(path: str, folder: Folder) -> tuple[str, Folder]:
    """Descend from a split while only one folder holds images, down to its class folders."""
    while not folder.images and len(folder.with_images) == 1:
        name, inner = next(iter(folder.with_images.items()))
        if not inner.with_images:
            break
        path, folder = join(path, name), inner
    return path, folder


def _read_split_folders(path: str, top: Folder) -> FolderLayout | None:
    """Return the layout of split folders that hold class folders; None if there are none."""
    holders = {name: inner for name, inner in top.with_images.items() if inner.with_images}
    repeats = {name: _find_repeated(name, inner, top) for name, inner in holders.items()}
    for name, repeated in repeats.items():
        if repeated and find_split(name) in (None, "training"):
            raise UserError(
                f"{join(path, name)} holds the folders {list_names(repeated)}, which are also "
                "beside it: import only one of the two, or remove the other from the source"
            )
    splits = _name_splits(holders)
    if any(repeats.values()) and "training" not in splits.values():
        tests = {join(path, name): splits[name] for name, repeated in repeats.items() if repeated}
        return FolderLayout({path: ""} | tests, notes=note_splits({path: ""} | tests))
    if "training" not in splits.values():
        _refuse_splits_without_training(top, splits)
        return None
    _refuse_other_folders(path, top, splits)
    return _make_split_layout(path, top, splits)


def _find_repeated(name: str, folder: Folder, top: Folder) -> list[str]:
    """Return the classes that are both in a folder and beside it: at least two of them, or all."""
    beside = set(top.with_images) - {name}
    same = [label for label in _list_classes(folder) if label in beside]
    return same if len(same) >= 2 or set(same) == beside else []


def _refuse_splits_without_training(top: Folder, splits: Mapping[str, str]) -> None:
    if splits and set(splits) == set(top.with_images):
        raise UserError(
            f"{list_names(list(splits))}: no folder is named like training; name the training "
            "folder in params.yaml, as in "
            f"`validate: {{layout: {{parts: {{training: [{next(iter(splits))}]}}}}}}`"
        )


def _refuse_other_folders(path: str, top: Folder, splits: Mapping[str, str]) -> None:
    """Raise `UserError` if the folders beside the split folders allow another reading."""
    folders = top.with_images
    classes = {label for name in splits for label in _list_classes(folders[name])}
    others = [
        name
        for name, folder in folders.items()
        if name not in splits and not _is_unlabelled(name, folder)
    ]
    holders = [name for name in others if folders[name].with_images]
    same = [name for name in holders if classes & set(_list_classes(folders[name]))]
    has_vague_name = any(name.casefold() not in SPLITS for name in splits)
    if same or (holders and has_vague_name) or (others and all(map(is_group, classes))):
        raise UserError(_describe_readings(path, top, [*splits, *(same or holders or others)]))


def _make_split_layout(path: str, top: Folder, named: Mapping[str, str]) -> FolderLayout:
    inner = {name: _unwrap_split(join(path, name), top.folders[name]) for name in named}
    training = [inner[name] for name, split in named.items() if split == "training"]
    learned = {label for _, folder in training for label in folder.with_images}
    unlabelled = [
        name
        for name, folder in top.with_images.items()
        if name not in named and _is_unlabelled(name, folder)
    ]
    splits: dict[str, str] = {}
    aside = [join(path, name) for name in unlabelled]
    for name, split in named.items():
        where, folder = inner[name]
        classes = set(folder.with_images)
        if split == "test" and not classes & learned and all(map(means_no_class, classes)):
            aside.append(where)
        else:
            splits[where] = split
    if all(map(means_no_class, learned)):
        raise UserError(
            f"{list_names(list(splits))} hold images without class folders: {LABELS_ELSEWHERE}"
        )
    for where, folder in training:
        _refuse_unclear_depth(where, folder)
    beside = [name for name in top.with_images if name not in (*named, *unlabelled)]
    lost = (f"left out, because they are in no split: {list_names(beside)}",) if beside else ()
    return FolderLayout(splits, aside=tuple(aside), notes=(*note_splits(splits), *lost))


def _refuse_unclear_depth(where: str, folder: Folder) -> None:
    """Raise `UserError` if the folders in a split hold folders that may be the classes."""
    inner = _list_inner_classes(folder)
    if _share_classes(inner):
        outer, inside = list_names(list(inner)), list_names(_join_classes(inner))
        raise UserError(
            f"in {where}/, {outer} hold folders of the same names ({inside}), and can be read in "
            "two ways. Choose one in params.yaml, below validate:\n"
            f"  layout: {{depth: 1}}   if {inside} are the classes\n"
            f"  layout: {{depth: 0}}   if {outer} are"
        )


def _read_class_folders(path: str, top: Folder) -> FolderLayout:
    """Return the layout of class folders at the top. Raises `UserError` if in doubt."""
    splits, inner = _name_splits(top.with_images), _list_inner_classes(top)
    _refuse_flat_splits(top, splits)
    if inner and all(map(find_split, _join_classes(inner))):
        raise UserError(
            f"{list_names(list(inner))} hold folders that are named like splits: expected the "
            f"splits above the classes, as in {next(iter(inner.values()))[0]}/{next(iter(inner))}/."
            " Move them, and import again"
        )
    if _share_classes(inner):
        raise UserError(_describe_readings(path, top, list(inner)))
    notes = []
    if splits:
        notes.append(
            f"{list_names(list(splits))}: named like a split, taken as a class "
            "(validate.layout.parts can change that)"
        )
    if inner:
        notes.append(
            f"the classes are {list_names(list(top.with_images))}; the folders in them "
            f"({list_names(_join_classes(inner))}) are merged "
            "(validate.layout.depth can make them the classes)"
        )
    return FolderLayout({path: ""}, notes=tuple(notes))


def _refuse_flat_splits(top: Folder, splits: Mapping[str, str]) -> None:
    """Raise `UserError` if folders named like splits hold images instead of class folders."""
    folders = top.with_images
    flat = {name: split for name, split in splits.items() if not folders[name].with_images}
    if len(folders) > 1 and len(flat) == len(folders):
        raise UserError(
            f"{list_names(list(flat))} hold images without class folders: {LABELS_ELSEWHERE}"
        )
    tests = [name for name, split in flat.items() if split == "test"]
    if tests and len(folders) - len(flat) >= 2:
        classes = list_names([name for name in folders if name not in flat])
        raise UserError(
            f"{list_names(tests)} is beside the classes {classes}, and is named like a split. "
            "Choose in params.yaml: "
            f"`validate: {{layout: {{parts: {{test: [{tests[0]}]}}}}}}` leaves its images aside, "
            "`validate: {layout: {parts: {}}}` makes it a class"
        )


def _describe_readings(path: str, top: Folder, names: Sequence[str]) -> str:
    """Describe how folders can be read, and the settings that choose a reading."""
    inside = list_names(
        sorted({label for name in names for label in _list_classes(top.folders[name])})
    )
    above = len(PurePosixPath(path).parts)
    wrapped = [_unwrap_split("", top.folders[name])[0] for name in names]
    depth = 1 + above + max(len(PurePosixPath(inner).parts) for inner in wrapped)
    others = [name for name in names if find_split(name) is None]
    training = [name for name in names if find_split(name) == "training"]
    training = training or others[:1] or list(names[:1])
    splits = {"training": training} | {
        find_split(name) or "test": [name] for name in names if name not in training
    }
    parts = ", ".join(
        f"{split}: [{', '.join(join(path, name) for name in folders)}]"
        for split, folders in splits.items()
    )
    return (
        f"{list_names(names)} hold folders of the same names ({inside}), and can be read in more "
        "than one way. Give one of them to `make data FROM=`, or choose in params.yaml, below "
        "validate:\n"
        f"  layout: {{parts: {{{parts}}}}}   if they are splits; others are left out\n"
        f"  layout: {{parts: {{}}, depth: {depth}}}   if {inside} are the classes, in any folder\n"
        f"  layout: {{parts: {{}}, depth: {above}}}   if {list_names(list(top.with_images))} are "
        "the classes"
    )


def _describe_flat(top: Folder) -> str:
    """Say what to do with images that are in no folder."""
    if not top.images:
        archives = list(filter(ARCHIVE.fullmatch, top.files))
        if archives:
            return f"{list_names(archives)}: unpack it, and import the folder"
        return "holds no image; expected class folders"
    if any("\\" in name for name in top.images):
        return (
            f"the names hold backslashes ({top.images[0]}): the archive was not unpacked as "
            "folders. Unpack it again with `unzip`, `7z x` or the system's own program"
        )
    labels = Counter(read_label(name) for name in top.images)
    remedy = "Expected a folder for each class"
    if "" not in labels and 2 <= len(labels) <= len(top.images) / 2:
        found = list_names([f"{label} ({count})" for label, count in labels.most_common()])
        remedy = (
            f"The names say {found}: set validate.label_from: name in params.yaml to take them as "
            "the classes"
        )
    return f"{len(top.images)} images are in no class folder. {remedy}"


def _name_splits(names: Iterable[str]) -> dict[str, str]:
    return {name: split for name in names if (split := find_split(name))}


def _list_classes(folder: Folder) -> list[str]:
    return list(_unwrap_split("", folder)[1].with_images)


def _list_inner_classes(folder: Folder) -> dict[str, list[str]]:
    """Return the possible classes inside each folder that holds folders with images."""
    return {
        name: _list_classes(holder)
        for name, holder in folder.with_images.items()
        if holder.with_images
    }


def _join_classes(inner: Mapping[str, list[str]]) -> list[str]:
    return sorted({label for labels in inner.values() for label in labels})


def _share_classes(inner: Mapping[str, list[str]]) -> bool:
    """Say whether several folders hold folders of the same names, which may be the classes."""
    times = Counter(label for labels in inner.values() for label in labels)
    shared = [label for label, count in times.items() if count > 1]
    return bool(shared) and (not all(map(is_group, shared)) or all(map(is_group, inner)))


def _is_unlabelled(name: str, folder: Folder) -> bool:
    """Say whether a folder beside the splits holds images without classes, by name and content."""
    while not folder.images and len(folder.with_images) == 1:
        folder = next(iter(folder.with_images.values()))
    return means_no_class(name) and bool(folder.images) and not folder.with_images
