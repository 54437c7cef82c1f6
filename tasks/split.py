"""Assign every usable image to training, validation or test: `data/splits.csv`.

Splits that the folders bring (Training, Testing, …) are kept. A missing split is carved from
training. Duplicates of an image (exact, near, mirrored) and images of one patient form a group,
and a group is never in two splits. If the given folders put duplicates into two splits, the copy in
training (or validation) is withheld, counted and listed. `split.copies` can limit this to
identical files.

A hash of the seed and of the group's first image by path decides the split of a carved group. If
patients are known, their name takes the place of the image. So adding images moves no image that
has a split, with three exceptions:

- a new near duplicate sorts before all other images of its group;
- a new image joins two groups;
- a class had no image in a carved split, so one of its groups was moved there. The group moves back
  once the class has others.

The stage fails if a class still lacks images in a split.
Run by hand: `dvc repro --single-item split`.
"""

import hashlib
import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.errors import UserError
from tasks.params.read import read_section
from tasks.params.split import Patients, Split
from tasks.quality.duplicates import find_duplicates, group_duplicates
from tasks.stage import run
from tasks.tables import read_foreign_table, read_table, write_table

SPLITS = ("test", "validation", "training")  # copies are withheld from the later ones
WITHHELD = "withheld"
SPLITS_COLUMNS = {
    "path": "The path of the image below data/clean.",
    "label": "Its class.",
    "split": "training, validation, test, or withheld: a copy of an image in another split.",
    "group": "The first path among its duplicates and the images of its patient.",
    "sha256": "The SHA-256 of the file.",
}
NAMED = 3  # images that a message gives as examples
REMEDY = (
    ", or write `missing: single` below split.patients: then each of these images counts as a "
    "patient of its own"
)
# {policy of split.copies: column}: images with an equal value in it stay in one split.
UNIQUE_IN_SPLIT = {"withhold": "group", "withhold_identical": "sha256"}

log = logging.getLogger(__name__)


def main(raw: Path, clean: Path, files_csv: Path, splits_csv: Path, split_json: Path) -> None:
    """Write the split and group of each image, and a summary of counts and duplicates."""
    params = read_section("split", Split)
    files = read_table(files_csv).query("status == 'usable'").reset_index(drop=True)
    near = params.near_copies
    copies = find_duplicates(files, clean, near.hash_distance, near.correlation)
    patients = find_patients(files.path, params.patients, raw)
    splits = assign(files, copies, patients, params)
    check_classes(splits)
    summary = summarise(files, copies, splits)
    write_table(splits[list(SPLITS_COLUMNS)], splits_csv)
    split_json.write_text(json.dumps(summary, indent=2) + "\n")
    log_summary(summary)


def find_patients(paths: Sequence[str], params: Patients, raw: Path) -> list[str]:
    """Return each image's patient, "" if it is not known.

    Raises `UserError` if images lack a patient, unless `missing` is `single`; and if all lack one.
    """
    table: dict[str, str] | None = None
    if params.pattern is not None:
        source, pattern = f"pattern {params.pattern!r}", _compile(params.pattern)
        found = [match[1] or "" if (match := pattern.search(path)) else "" for path in paths]
    elif params.table is not None:
        source, table = f"table {raw / params.table}", _read_patients(raw / params.table)
        # The cells of the table have no blanks around them.
        found = [table.get(path.strip(), "") for path in paths]
    else:
        return [""] * len(paths)
    missed = [path for path, patient in zip(paths, found, strict=True) if not patient]
    if missed and (params.missing == "refuse" or len(missed) == len(paths)):
        remedy = REMEDY if len(missed) < len(paths) else ""
        raise UserError(_describe_missed(source, missed, len(paths)) + remedy + _list_rows(table))
    return found


def _describe_missed(source: str, missed: Sequence[str], images: int) -> str:
    examples = ", ".join(missed[:NAMED]) + (", …" if len(missed) > NAMED else "")
    return (
        f"split.patients: the {source} gives no patient for {len(missed)} of {images} images: "
        f"{examples}. Expected one for each image, or patients could be in two splits. Complete it"
    )


def _list_rows(table: Mapping[str, str] | None) -> str:
    if table is None:
        return ""
    if not table:
        return ". The table has no rows"
    return f". The table names, for example, {', '.join(list(table)[:NAMED])}"


def assign(
    files: pd.DataFrame, copies: pd.DataFrame, patients: Sequence[str], params: Split
) -> pd.DataFrame:
    """Return path, label, sha256, given split, group and split of each image.

    `files` has the columns path, subset, label and sha256.
    """
    links = pd.concat([copies, _link_patients(files.path, patients)])
    images = files[["path", "label", "sha256"]].assign(
        given=files.subset.replace("", "training"),
        group=group_duplicates(files.path, links),
        key=[patient or sha for patient, sha in zip(patients, files.sha256, strict=True)],
    )
    first = images.sort_values("path").drop_duplicates("group")
    images["key"] = images.group.map(first.set_index("group").key)
    carved = [split for split in ("test", "validation") if split not in set(images.given)]
    free = _find_free(images, params.copies)
    drawn = images.key.map(lambda key: _draw(key, carved, params))
    images["split"] = images.given.mask(free, drawn)
    if params.copies in UNIQUE_IN_SPLIT:
        images["split"] = _withhold_copies(images, UNIQUE_IN_SPLIT[params.copies])
    return _move_groups(images, free, carved, params)


def _find_free(images: pd.DataFrame, policy: str) -> pd.Series:
    """Return which images may go to a carved split."""
    free = images.given == "training"
    if policy == "withhold_identical":  # then a copy of a test image may validate as well as train
        return free
    return free & ~images.group.isin(images.group[~free])


def _withhold_copies(images: pd.DataFrame, column: str) -> pd.Series:
    """Return the splits, with every image withheld that a value links to an earlier split."""
    earliest = images.groupby(column).split.transform(lambda given: min(given, key=SPLITS.index))
    return images.split.mask(images.split != earliest, WITHHELD)


def _move_groups(
    images: pd.DataFrame, free: pd.Series, carved: Sequence[str], params: Split
) -> pd.DataFrame:
    """Move groups of small classes so that each carved split has images of each class."""
    fillable = [split for split in carved if getattr(params, split) > 0]
    fillable += ["training"] if carved else []
    movable = free & images.split.isin(fillable)
    moved = fill_splits(images.assign(movable=movable), fillable, params.seed)
    if moved:
        log.info(
            "moved so that each split has images of each class: %d groups of small classes",
            len(moved),
        )
    target = images.group.map(moved)
    return images.assign(split=images.split.mask(movable & target.notna(), target))


def fill_splits(images: pd.DataFrame, splits: Sequence[str], seed: int) -> dict[str, str]:
    """Return {group: split} for the groups to move, so that each class is in each of `splits`.

    `images` have the columns label, split, group, key (of the group) and movable. A split that
    lacks a class gets the group of this class with the lowest hash of (seed, split, key). Only
    groups count whose classes all keep another image in their present split. If there is no such
    group, the split stays as it is.
    """
    counts = Counter(zip(images.split, images.label, strict=True))
    movable = images[images.movable]
    moved: dict[str, str] = {}
    for split, label in itertools.product(splits, sorted(set(images.label))):
        if counts[split, label] > 0:
            continue
        for name in _sort_groups(movable[movable.label == label], split, seed):
            rows = movable[movable.group == name]
            source, classes = moved.get(name, rows.split.iloc[0]), Counter(rows.label)
            if all(counts[source, one] > count for one, count in classes.items()):
                moved[name] = split
                counts.subtract({(source, one): count for one, count in classes.items()})
                counts.update({(split, one): count for one, count in classes.items()})
                break
    return moved


def _sort_groups(images: pd.DataFrame, split: str, seed: int) -> list[str]:
    """Return the groups of images, sorted by the hash of (seed, split, key)."""
    keys = images.drop_duplicates("group").set_index("group").key
    return sorted(keys.index, key=lambda name: _hash(f"{seed}:{split}:{keys[name]}"))


def check_classes(splits: pd.DataFrame) -> None:
    """Raise `UserError` naming every class that has no image in a split."""
    counts = pd.crosstab(splits.label, splits.split).reindex(columns=list(SPLITS), fill_value=0)
    lacking = [
        f"{label} has no {split} image"
        for label, row in counts.iterrows()
        for split in SPLITS
        if row[split] == 0
    ]
    if lacking:
        raise UserError(
            f"every class needs images in each split, but {'; '.join(lacking)}. Add images of that "
            "class: no copies, and of other patients. If split.validation or split.test is 0 in "
            "params.yaml, raise it."
        )


def summarise(files: pd.DataFrame, copies: pd.DataFrame, splits: pd.DataFrame) -> dict[str, Any]:
    """Return the counts per split and class, and of duplicates, with withheld images and conflicts.

    A conflict is a pair of duplicates in two classes.
    """
    label = splits.set_index("path").label
    counts = pd.crosstab(splits.split, splits.label).reindex(
        [*reversed(SPLITS), WITHHELD], fill_value=0
    )
    exact = files.assign(given=splits.given)[files.sha256.duplicated(keep=False)].groupby("sha256")
    conflicts = copies[copies.path_a.map(label) != copies.path_b.map(label)]
    return {
        "images": {split: row.to_dict() for split, row in counts.iterrows()},
        "exact_groups": exact.ngroups,
        "exact_surplus": int(files.sha256.duplicated().sum()),
        "exact_groups_across_parts": int((exact.given.nunique() > 1).sum()),
        "pairs": {kind: int((copies.kind == kind).sum()) for kind in ("exact", "near", "mirrored")},
        "groups": int(splits.group.duplicated(keep=False).groupby(splits.group).any().sum()),
        "withheld": sorted(splits.path[splits.split == WITHHELD]),
        "label_conflicts": conflicts[["path_a", "path_b", "kind"]].to_dict("records"),
    }


def log_summary(summary: dict[str, Any]) -> None:
    """Log the counts, and warn of duplicates in two classes."""
    for split, counts in summary["images"].items():
        listed = "  ".join(f"{label} {count}" for label, count in counts.items())
        log.info("%-10s %6d   %s", split, sum(counts.values()), listed)
    log.info(
        "pairs of copies: %s; groups of identical files: %d, across given splits: %d; "
        "withheld images: %d",
        ", ".join(f"{count} {kind}" for kind, count in summary["pairs"].items()),
        summary["exact_groups"],
        summary["exact_groups_across_parts"],
        len(summary["withheld"]),
    )
    if conflicts := summary["label_conflicts"]:
        log.info(
            "warn: pairs of copies in two classes: %d, such as %s and %s",
            len(conflicts),
            conflicts[0]["path_a"],
            conflicts[0]["path_b"],
        )


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"split.patients.pattern: {pattern!r} is not a regular expression: {error}"
        ) from error
    if compiled.groups != 1:
        raise UserError(
            f"split.patients.pattern: {pattern!r} has {compiled.groups} groups, "
            "expected one around the patient"
        )
    return compiled


def _read_patients(path: Path) -> dict[str, str]:
    """Return {path: patient}; paths may have the separators of Windows."""
    if not path.is_file():
        raise UserError(
            f"split.patients.table: {path} is missing, expected a CSV file with columns path and "
            "patient"
        )
    table = read_foreign_table(path, ("path", "patient"))
    table["path"] = table.path.str.replace("\\", "/").str.removeprefix("./")
    patients = table[table.patient != ""].drop_duplicates(["path", "patient"])
    double = patients.path[patients.path.duplicated()]
    if len(double):
        raise UserError(
            f"split.patients.table: {path} gives {double.iloc[0]} two patients, expected one; "
            f"{len(double)} such rows"
        )
    return dict(zip(patients.path, patients.patient, strict=True))


def _link_patients(paths: Sequence[str], patients: Sequence[str]) -> pd.DataFrame:
    """Link each image of a patient to the patient's first, in the columns of `find_duplicates`."""
    images = pd.DataFrame({"path_b": paths, "patient": patients})
    known = images.query("patient != ''").sort_values("path_b")
    known["path_a"] = known.groupby("patient").path_b.transform("first")
    return known.query("path_a != path_b")[["path_a", "path_b"]]


def _draw(key: str, carved: Sequence[str], params: Split) -> str:
    """Return the split that the hash of `key` and the seed falls into."""
    position = _hash(f"{params.seed}:{key}") / 2**64
    for split in carved:
        share = getattr(params, split)
        if position < share:
            return split
        position -= share
    return "training"


def _hash(text: str) -> int:
    """Return 64 bits of the SHA-256 of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


if __name__ == "__main__":
    run(main)
