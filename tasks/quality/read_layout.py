"""Read the folder layout of a folder of images, as `validate.layout` sets it or as detected."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.errors import UserError
from tasks.params.validate import Validate
from tasks.quality.detect_layout import detect_layout, detect_splits, unwrap
from tasks.quality.folder_names import find_split, list_names
from tasks.quality.folders import Folder, join, list_folders, read_tree
from tasks.quality.layout import (
    FolderLayout,
    Place,
    note_aside,
    note_empty,
    note_junk,
    note_splits,
)
from tasks.quality.repeated_classes import refuse_repeated_files, refuse_similar_names


def read_layout(root: Path, validate: Validate) -> FolderLayout:
    """Return the layout of the folders below `root`. Raises `UserError` if it is not clear."""
    tree, junk = read_tree(root)
    is_set = validate.layout.parts is not None or validate.layout.depth is not None
    layout = _apply_settings(tree, validate) if is_set else detect_layout(tree, validate.label_from)
    layout = _set_aside(layout, tree)
    files = _group_files(layout, tree)
    if not files:
        raise UserError(
            f"no image has a class: {layout.expected}, as `validate.layout` and "
            "`validate.label_from` say"
        )
    if validate.layout.similar_names == "refuse":
        refuse_similar_names({label for _, label in files})
    by_class: dict[str, list[Path]] = {}
    for (_, label), paths in files.items():
        by_class.setdefault(label, []).extend(root / path for path in paths)
    refuse_repeated_files(by_class)
    places = _find_empty(layout, tree) | files
    empty = {label for _, label in places} - by_class.keys()
    notes = (*layout.notes, *note_empty(empty), *note_junk(junk))
    counts = {
        (split, label): len(paths)
        for (split, label), paths in sorted(places.items())
        if label not in empty
    }
    return replace(layout, counts=counts, notes=notes)


def read_foreign_layout(root: Path) -> FolderLayout:
    """Return the layout of a folder for an assessment; no layout is refused.

    The classes are checked against those of the model later. Folders named like any split are taken
    as the parents of class folders.
    """
    tree, _ = read_tree(root)
    path, top = unwrap("", tree)
    splits = {
        join(path, name): split
        for name, inner in top.with_images.items()
        if inner.with_images and (split := find_split(name))
    }
    return FolderLayout(splits or {path: ""})


def _apply_settings(tree: Folder, validate: Validate) -> FolderLayout:
    """Return the layout that `validate.layout` sets, with splits by name if `parts` is unset."""
    if validate.layout.parts is None:
        given = detect_splits(*unwrap("", tree))
    else:
        given = _read_parts(validate.layout.parts, tree)
    splits = given if "training" in given.values() else {"": "", **given}
    used = {folder.split("/")[0] for folder in given}
    beside = () if "" in splits else tuple(name for name in tree.with_images if name not in used)
    depth = validate.layout.depth or 0
    return FolderLayout(splits, depth, validate.label_from, beside, note_splits(splits))


def _read_parts(parts: Mapping[Any, list[str]], tree: Folder) -> dict[str, str]:
    given = {folder.strip("/"): split for split, folders in parts.items() for folder in folders}
    known = [path for path, _ in list_folders(tree)]
    missing = [folder for folder in given if folder not in known]
    if missing:
        raise UserError(
            f"validate.layout.parts: no folder {list_names(missing)} with images; the folders are "
            f"{list_names(list(filter(None, known)))}"
        )
    return given


def _set_aside(layout: FolderLayout, tree: Folder) -> FolderLayout:
    """Leave aside the split folders in which no image has a class, except training's."""
    by_folder = replace(layout, splits={path: path for path in layout.splits})
    labelled = {folder for folder, _ in _group_files(by_folder, tree)}
    unlabelled = [
        path
        for path, split in layout.splits.items()
        if split not in ("", "training") and path not in labelled
    ]
    aside = (*layout.aside, *unlabelled)
    return replace(layout, aside=aside, notes=(*layout.notes, *note_aside(aside, tree)))


def _group_files(layout: FolderLayout, tree: Folder) -> dict[Place, list[str]]:
    """Return the paths of the files that may be images, by split and class."""
    files: dict[Place, list[str]] = {}
    for path, folder in list_folders(tree):
        for name in () if layout.is_aside(f"{path}/") else folder.images:
            inside = join(path, name)
            files.setdefault(layout.find_place(inside), []).append(inside)
    return {place: paths for place, paths in files.items() if place[1]}


def _find_empty(layout: FolderLayout, tree: Folder) -> dict[Place, list[str]]:
    """Return {(split, class): []} for each empty class folder."""
    if layout.label_from == "name":
        return {}
    empty = [path for path, folder in list_folders(tree) if not (folder.files or folder.folders)]
    places = [layout.find_place(f"{path}/any") for path in empty]
    return {place: [] for place in places if place[1]}
