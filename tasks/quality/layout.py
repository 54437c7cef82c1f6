"""How the images lie: the part and the class of every file, read from its folders.

Folders of parts (`train`, `Testing`, `val_images`, …) hold class folders; without parts, the class folders lie at the top.
Both may lie deeper, below folders that hold nothing else. A set that can be read in two ways is refused with the settings
to choose from: a class that is a part, or the whole set a second time, would give a fine score that is not true.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from tasks.errors import UserError
from tasks.params.validate import Validate
from tasks.quality.alike import refuse_repeated, refuse_similar
from tasks.quality.folders import Folder, each_folder, join, look

PARTS = {
    "train": "training", "training": "training", "trn": "training",
    "val": "validation", "valid": "validation", "validation": "validation", "validate": "validation", "dev": "validation",
    "test": "test", "testing": "test", "tst": "test", "holdout": "test",
}  # fmt: skip
PART_WORD = re.compile(rf"({'|'.join(PARTS)})(?:set|data|dataset|images?|imgs?|folder)?")
# Images in folders of such names have no class: they are to be asked about.
UNLABELLED_WORD = re.compile(
    r"pred|predict|predictions?|unlabell?ed|unknown|submission|inference|all|images?|imgs?|photos?|jpe?g|png"
)
# Folders of such names, with a number or without, tell images of one class apart: batches, sessions, patients.
GROUP_WORD = re.compile(
    r"batch|set|part|session|day|week|month|year|series|scan|study|patient|subject|case|folder|group|run|slice|fold|split|"
    r"images?|imgs?|photos?|pictures?|left|right|jpe?g|png"
)
ARCHIVE = re.compile(r".*\.(?:zip|tar|gz|tgz|bz2|xz|7z|rar)", re.IGNORECASE | re.DOTALL)
NUMBERED = re.compile(r"(?P<label>.*?)[\s._#(-]*\d+\)?")
LABELS_ELSEWHERE = (
    "expected a folder for each class; labels in tables or JSON files are not read. Export the set as class folders, or, "
    "where the names of the files say the class (cat.12.jpg), set `validate: {label_from: name}` in params.yaml"
)
NAMED = 8  # names that a line lists


@dataclass(frozen=True)
class Layout:
    """Where the parts and the classes lie, and what a person should know of this reading."""

    parts: Mapping[str, str]  # {folder: part}; a folder of no part has the part ""
    depth: int = 0  # folders between that of a part and those of its classes
    label_from: str = "folder"
    aside: tuple[str, ...] = ()  # folders of images without a class
    notes: tuple[str, ...] = ()
    counts: Mapping[tuple[str, str], int] = field(
        default_factory=dict
    )  # files that may be images, by part and class

    def place(self, path: str) -> tuple[str, str]:
        """Return part and class of a file, by its path below the images; a class of "" where it lies in none."""
        names = PurePosixPath(path).parts
        for length in range(len(names) - 1, -1, -1):
            part = self.parts.get("/".join(names[:length]))
            if part is not None:
                return part, self._label(names[length:])
        return "", ""

    @property
    def expected(self) -> str:
        """Say what the path of an image looks like."""
        if self.label_from == "name":
            return "expected <class>.<number>.<ending>, as in cat.12.jpg"
        folders = "<folder>/" * self.depth
        return f"expected {'<part>/' if any(self.parts.values()) else ''}{folders}<class>/<file>"

    def is_aside(self, path: str) -> bool:
        """Say whether a file is left aside: it may be asked about, and nothing is learned from it."""
        return any(path.startswith(f"{folder}/") for folder in self.aside)

    def _label(self, names: tuple[str, ...]) -> str:
        if self.label_from == "name":
            return label_of_name(names[-1])
        return names[self.depth] if len(names) > self.depth + 1 else ""


def label_of_name(name: str) -> str:
    """Return what a file name says without its ending and its last number: `cat.12.jpg` and `cat (12).png` are cats."""
    stem = PurePosixPath(name).stem
    numbered = NUMBERED.fullmatch(stem)
    return numbered["label"] if numbered else stem


def part_of_name(name: str) -> str | None:
    """Return the part that a folder's name names, None where it names none or two: `Seg_Train`, `TestSet`, `val2017`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W\d_]+", " ", name)
    found = {
        PARTS[match[1]]
        for word in spaced.casefold().split()
        if (match := PART_WORD.fullmatch(word))
    }
    return found.pop() if len(found) == 1 else None


def read_layout(root: Path, validate: Validate) -> Layout:
    """Look at the folders below `root` and return how the images lie. Raises `UserError` where that is not clear."""
    tree, litter = look(root)
    is_said = validate.layout.parts is not None or validate.layout.depth is not None
    layout = _set_aside((_given if is_said else _find)(tree, validate), tree)
    files = _by_class(layout, tree)
    if not files:
        raise UserError(
            f"no image has a class: {layout.expected}, as `validate.layout` and `validate.label_from` say"
        )
    if validate.layout.similar_names == "refuse":
        refuse_similar({label for _, label in files})
    of_class: dict[str, list[Path]] = {}
    for (_, label), paths in files.items():
        of_class.setdefault(label, []).extend(root / path for path in paths)
    refuse_repeated(of_class)
    counts = {place: len(paths) for place, paths in sorted((_empty(layout, tree) | files).items())}
    return replace(
        layout, counts=counts, notes=(*layout.notes, *_note_empty(counts), *_note_litter(litter))
    )


def read_foreign_layout(root: Path) -> Layout:
    """Return the layout of a folder whose classes are checked against a model's, so that none has to be refused here.

    Folders named like parts, whatever parts they are, lie above the classes.
    """
    tree, _ = look(root)
    path, top = _unwrap("", tree)
    parts = {
        join(path, name): part
        for name, inner in top.with_images.items()
        if inner.with_images and (part := part_of_name(name))
    }
    return Layout(parts or {path: ""})


def _by_class(layout: Layout, tree: Folder) -> dict[tuple[str, str], list[str]]:
    """Return the paths of the files of each part and class that may be images."""
    files: dict[tuple[str, str], list[str]] = {}
    for path, folder in each_folder(tree):
        for inside in (
            join(path, name) for name in folder.images if not layout.is_aside(f"{path}/")
        ):
            files.setdefault(layout.place(inside), []).append(inside)
    return {place: paths for place, paths in files.items() if place[1]}


def _empty(layout: Layout, tree: Folder) -> dict[tuple[str, str], list[str]]:
    """Return part and class of each folder of a class that is empty."""
    empty = [path for path, folder in each_folder(tree) if not folder.files and not folder.folders]
    places = [layout.place(f"{path}/any") for path in empty if layout.label_from == "folder"]
    return {place: [] for place in places if place[1]}


def _set_aside(layout: Layout, tree: Folder) -> Layout:
    """Leave aside the folders of parts in which no image has a class, but that of training."""
    known = dict(each_folder(tree))
    labelled = {part for part, _ in _by_folder(layout, tree)}
    unlabelled = [
        path
        for path, part in layout.parts.items()
        if part not in ("", "training") and path not in labelled
    ]
    aside = (*layout.aside, *unlabelled)
    return replace(layout, aside=aside, notes=(*layout.notes, *_notes_aside(aside, known)))


def _by_folder(layout: Layout, tree: Folder) -> set[tuple[str, str]]:
    """Return the folders of parts with the classes in them."""
    by_folder = replace(layout, parts={path: path for path in layout.parts})
    return set(_by_class(by_folder, tree))


def _given(tree: Folder, validate: Validate) -> Layout:
    """Take the layout as `validate.layout` says; where it says a depth alone, the parts by their names."""
    known = dict(each_folder(tree))
    said = (
        _said_parts(validate, known)
        if validate.layout.parts is not None
        else _named_parts(*_unwrap("", tree))
    )
    parts = said if "training" in said.values() else {"": "", **said}
    beside = [
        name
        for name in tree.with_images
        if not any(folder.split("/")[0] == name for folder in said)
    ]
    return Layout(
        parts,
        validate.layout.depth or 0,
        validate.label_from,
        () if "" in parts else tuple(beside),
        _notes_parts(parts),
    )


def _said_parts(validate: Validate, known: Mapping[str, Folder]) -> dict[str, str]:
    said = {
        folder.strip("/"): part
        for part, folders in (validate.layout.parts or {}).items()
        for folder in folders
    }
    missing = [folder for folder in said if folder not in known]
    if missing:
        raise UserError(
            f"validate.layout.parts: no folder {_list(missing)} with images; the folders are "
            f"{_list([path for path in known if path])}"
        )
    return said


def _named_parts(path: str, top: Folder) -> dict[str, str]:
    """Return the folders that are named like parts, where one of them is that of training."""
    parts = {join(path, name): part for name in top.with_images if (part := part_of_name(name))}
    return parts if "training" in parts.values() else {}


def _find(tree: Folder, validate: Validate) -> Layout:
    """Take the only reading that the names and the nesting of the folders allow, or raise `UserError`."""
    path, top = _unwrap("", tree)
    notes = (f"the images lie in {path}/",) if path else ()
    if validate.label_from == "name":
        parts = _named_parts(path, top) or {path: ""}
        return Layout(parts, 0, "name", notes=(*notes, *_notes_parts(parts)))
    if not top.with_images:
        raise UserError(_describe_flat(top))
    layout = _find_parts(path, top) or _find_classes(path, top)
    return replace(layout, notes=(*notes, *layout.notes))


def _find_parts(path: str, top: Folder) -> Layout | None:
    """Return the layout where folders of parts hold class folders; None where the folders at the top are classes."""
    holders = {name: inner for name, inner in top.with_images.items() if inner.with_images}
    again = {name: _again(name, inner, top) for name, inner in holders.items()}
    for name in (
        name for name, same in again.items() if same and part_of_name(name) in (None, "training")
    ):
        raise UserError(
            f"{join(path, name)} holds {_list(again[name])} again, which lie beside it too: import one of the two, "
            f"or remove the other from the source"
        )
    held = {name: part for name in holders if (part := part_of_name(name))}
    if any(again.values()) and all(part != "training" for part in held.values()):
        parts = {path: ""} | {join(path, name): held[name] for name, same in again.items() if same}
        return Layout(parts, notes=_notes_parts(parts))
    if "training" not in held.values():
        _refuse_parts_without_training(top, held)
        return None
    _refuse_strangers(path, top, held, holders)
    return _with_parts(path, top, held)


def _with_parts(path: str, top: Folder, held: dict[str, str]) -> Layout:
    inner = {name: _unwrap_part(join(path, name), top.folders[name]) for name in held}
    learned = {
        label
        for name, part in held.items()
        if part == "training"
        for label in inner[name][1].with_images
    }
    aside = [
        join(path, name)
        for name, folder in top.with_images.items()
        if name not in held and _is_unlabelled(name, folder)
    ]
    parts = {}
    for name, part in held.items():
        where, folder = inner[name]
        classes = set(folder.with_images)
        if part == "test" and not classes & learned and all(map(_means_no_class, classes)):
            aside.append(where)
        else:
            parts[where] = part
    if all(map(_means_no_class, learned)):
        raise UserError(
            f"{_list(list(parts))} hold images without class folders: {LABELS_ELSEWHERE}"
        )
    for where, folder in (inner[name] for name, part in held.items() if part == "training"):
        _refuse_repeated_inside(folder, f"in {where}/, ")
    beside = [
        name for name in top.with_images if name not in held and join(path, name) not in aside
    ]
    lost = (f"in no part, so in no class: {_list(beside)}",) if beside else ()
    return Layout(parts, aside=tuple(aside), notes=(*_notes_parts(parts), *lost))


def _refuse_repeated_inside(folder: Folder, where: str) -> None:
    """Raise `UserError` where the folders of a part's classes hold the same folders, which may be the classes."""
    inner = {
        name: _classes(holder) for name, holder in folder.with_images.items() if holder.with_images
    }
    if _repeat(inner):
        inside = sorted({label for labels in inner.values() for label in labels})
        raise UserError(
            f"{where}{_list(list(inner))} hold folders of the same names ({_list(inside)}), and can be read in two ways. Say in "
            f"params.yaml, below validate:\n  layout: {{depth: 1}}   where {_list(inside)} are the classes\n"
            f"  layout: {{depth: 0}}   where {_list(list(inner))} are"
        )


def _repeat(inner: Mapping[str, list[str]]) -> bool:
    """Say whether folders hold folders of the same names that may be classes. `inner` has these by folder."""
    times = Counter(label for labels in inner.values() for label in labels)
    repeated = [label for label, number in times.items() if number > 1]
    return bool(repeated) and (not all(map(_is_group, repeated)) or all(map(_is_group, inner)))


def _refuse_parts_without_training(top: Folder, held: dict[str, str]) -> None:
    if held and set(held) == set(top.with_images):
        raise UserError(
            f"{_list(list(held))}: none of them is named like training; say which is in params.yaml, as in "
            f"`validate: {{layout: {{parts: {{training: [{next(iter(held))}]}}}}}}`"
        )


def _refuse_strangers(
    path: str, top: Folder, held: dict[str, str], holders: Mapping[str, Folder]
) -> None:
    """Raise `UserError` where folders beside those of parts hold the same classes, or a part is named in many words only."""
    classes = {label for name in held for label in _classes(holders[name])}
    beside = [
        name for name in holders if name not in held and not _is_unlabelled(name, holders[name])
    ]
    same = [name for name in beside if classes & set(_classes(holders[name]))]
    loose = [name for name in held if name.casefold() not in PARTS]
    flat = [
        name
        for name, inner in top.with_images.items()
        if name not in held and not _is_unlabelled(name, inner)
    ]
    if same or (beside and loose) or (flat and all(map(_is_group, classes))):
        raise UserError(_two_readings(path, top, [*held, *(same or beside or flat)]))


def _find_classes(path: str, top: Folder) -> Layout:
    """Return the layout whose folders at the top are classes. Raises `UserError` where they may be something else."""
    classes = top.with_images
    named = {name: part for name in classes if (part := part_of_name(name))}
    flat = {name: part for name, part in named.items() if not classes[name].with_images}
    if len(classes) > 1 and len(flat) == len(classes):
        raise UserError(
            f"{_list(list(flat))} hold images without class folders: {LABELS_ELSEWHERE}"
        )
    tests = [name for name, part in flat.items() if part == "test"]
    if tests and len(classes) - len(flat) >= 2:
        raise UserError(
            f"{_list(tests)} lies beside the classes {_list([name for name in classes if name not in flat])}, and is named like "
            f"a part. Say in params.yaml which it is: `validate: {{layout: {{parts: {{test: [{tests[0]}]}}}}}}` leaves its images "
            "aside, `validate: {layout: {parts: {}}}` makes it a class"
        )
    inner = {name: _classes(folder) for name, folder in classes.items() if folder.with_images}
    if inner and all(part_of_name(label) for labels in inner.values() for label in labels):
        raise UserError(
            f"{_list(list(inner))} hold folders that are named like parts: expected the parts above the classes, as in "
            f"{next(iter(next(iter(inner.values()))))}/{next(iter(inner))}/. Move them, and import again"
        )
    if _repeat(inner):
        raise UserError(_two_readings(path, top, list(inner)))
    notes = (
        [
            f"{_list(list(named))}: named like a part, taken as a class (validate.layout.parts says otherwise)"
        ]
        if named
        else []
    )
    if inner:
        deeper = sorted({label for labels in inner.values() for label in labels})
        notes.append(
            f"the classes are {_list(list(classes))}; the folders in them ({_list(deeper)}) are not told apart "
            "(validate.layout.depth makes those the classes)"
        )
    return Layout({path: ""}, notes=tuple(notes))


def _two_readings(path: str, top: Folder, names: list[str]) -> str:
    """Say that folders may be parts, classes, or folders above classes, and which settings choose."""
    inside = sorted({label for name in names for label in _classes(top.folders[name])})
    above = len(PurePosixPath(path).parts)
    depth = (
        1
        + above
        + max(len(PurePosixPath(_unwrap_part("", top.folders[name])[0]).parts) for name in names)
    )
    strangers = [name for name in names if part_of_name(name) is None]
    training = (
        [name for name in names if part_of_name(name) == "training"] or strangers[:1] or names[:1]
    )
    parts = {"training": training} | {
        part_of_name(name) or "test": [name] for name in names if name not in training
    }
    said = ", ".join(
        f"{part}: [{', '.join(join(path, name) for name in folders)}]"
        for part, folders in parts.items()
    )
    return (
        f"{_list(names)} hold folders of the same names ({_list(inside)}), and can be read in more than one way. "
        "Give one of them to `make data FROM=`, or say in params.yaml, below validate:\n"
        f"  layout: {{parts: {{{said}}}}}   where they are parts; others are left out\n"
        f"  layout: {{parts: {{}}, depth: {depth}}}   where {_list(inside)} are the classes, whichever folder they lie in\n"
        f"  layout: {{parts: {{}}, depth: {above}}}   where {_list(list(top.with_images))} are the classes"
    )


def _describe_flat(top: Folder) -> str:
    """Say what is to be done with images that lie in no folder."""
    if not top.images:
        archives = list(filter(ARCHIVE.fullmatch, top.files))
        return (
            f"{_list(archives)}: unpack it, and import the folder"
            if archives
            else "holds no image; expected class folders"
        )
    if any("\\" in name for name in top.images):
        return (
            f"the names hold backslashes ({top.images[0]}): the archive was not unpacked as folders. Unpack it again "
            "with `unzip`, `7z x` or the system's own program"
        )
    labels = Counter(label_of_name(name) for name in top.images)
    said = _list([f"{label} ({number})" for label, number in labels.most_common()])
    offer = f"The names say {said}: set validate.label_from: name in params.yaml to take them as the classes"
    fits = "" not in labels and 2 <= len(labels) <= len(top.images) / 2
    return f"{len(top.images)} images lie in no class folder. {offer if fits else 'Expected a folder for each class'}"


def _again(name: str, folder: Folder, top: Folder) -> list[str]:
    """Return the folders in `folder` that lie beside it too, where most do."""
    beside = set(top.with_images) - {name}
    same = [label for label in _classes(folder) if label in beside]
    return same if len(same) >= 2 or set(same) == beside else []


def _classes(folder: Folder) -> list[str]:
    return list(_unwrap_part("", folder)[1].with_images)


def _unwrap(path: str, folder: Folder) -> tuple[str, Folder]:
    """Go down while a folder holds nothing but one folder of folders with images; return where that ends."""
    while len(folder.with_images) == 1:
        name, inner = next(iter(folder.with_images.items()))
        is_class = not inner.with_images and (
            folder.images or (not part_of_name(name) and not _is_group(name))
        )
        if is_class or (inner.with_images and part_of_name(name) == "training"):
            break
        path, folder = join(path, name), inner
    return path, folder


def _unwrap_part(path: str, folder: Folder) -> tuple[str, Folder]:
    """Go down in a part while it holds nothing but one folder of class folders."""
    while not folder.images and len(folder.with_images) == 1:
        name, inner = next(iter(folder.with_images.items()))
        if not inner.with_images:
            break
        path, folder = join(path, name), inner
    return path, folder


def _is_unlabelled(name: str, folder: Folder) -> bool:
    """Say whether a folder beside parts holds images to be asked about: named so, and without classes."""
    while not folder.images and len(folder.with_images) == 1:
        folder = next(iter(folder.with_images.values()))
    return _means_no_class(name) and bool(folder.images) and not folder.with_images


def _means_no_class(name: str) -> bool:
    words = re.sub(r"[\W\d_]+", " ", name).casefold().split()
    return part_of_name(name) is not None or any(map(UNLABELLED_WORD.fullmatch, words))


def _is_group(name: str) -> bool:
    """Say whether a folder's name tells images of one class apart; bare numbers may be classes, but for dates."""
    words = re.sub(r"[\W\d_]+", " ", name).casefold().split()
    numbers = re.findall(r"\d+", name)
    if not words:
        return bool(numbers) and len(numbers[0]) >= 4
    return all(GROUP_WORD.fullmatch(word) or (len(word) == 1 and numbers) for word in words)


def _notes_parts(parts: Mapping[str, str]) -> tuple[str, ...]:
    said = [f"{path or 'the other folders'} → {part or 'training'}" for path, part in parts.items()]
    return (f"parts: {', '.join(said)}",) if len(parts) > 1 or set(parts.values()) != {""} else ()


def _notes_aside(aside: list[str], known: Mapping[str, Folder]) -> tuple[str, ...]:
    counts = [sum(len(inner.images) for _, inner in each_folder(known[path])) for path in aside]
    return tuple(
        f"{path}: {number} images without a class are left aside; `python -m serving.predict data/raw/{path}` asks about them"
        for path, number in zip(aside, counts, strict=True)
    )


def _note_empty(counts: Mapping[tuple[str, str], int]) -> tuple[str, ...]:
    filled = {label for (_, label), number in counts.items() if number}
    empty = sorted({label for _, label in counts} - filled)
    return (f"without an image, so no class: {_list(empty)}",) if empty else ()


def _note_litter(litter: Counter[str]) -> tuple[str, ...]:
    said = [f"{name} ({times})" if times > 1 else name for name, times in sorted(litter.items())]
    return (f"hidden or of the system, left out: {_list(said)}",) if said else ()


def _list(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
