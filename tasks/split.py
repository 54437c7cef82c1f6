"""Assign every usable image to training, validation or test: `data/splits.csv`.

Parts that the folders bring (Training, Testing, …) are kept as given; a missing one is carved from training. Copies of one
picture (exact, near, mirrored) and images of one patient share a group, and a group never straddles two parts. Where given
folders put copies on both sides, the training (or validation) copy is withheld, counted and listed, or the identical ones
alone, as params say.

A carved group's part is a hash of the seed and of the first of its images by path (of the patient, where patients are
known). So adding images moves none that is already assigned, but in three cases:

- a new near copy sorts before all other images of its group;
- a new image joins two groups;
- a class had no image in a carved part, so one of its groups was moved there: it goes back once the class has others.

Fails where a class lacks images in a part all the same.
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

import pandas as pd

from tasks.errors import UserError
from tasks.params.read import read_section
from tasks.params.split import Patients, Split
from tasks.quality.duplicates import find_copies, group
from tasks.stage import run
from tasks.tables import read_foreign_table, read_table, write_table

PARTS = ("test", "validation", "training")  # by precedence: copies are withheld from the later ones
WITHHELD = "withheld"
NAMED = 3  # images that a message gives as examples
REMEDY = ", or write `missing: single` below split.patients: then each of these images counts as a patient of its own"
SAME = {
    "withhold": "group",
    "withhold_identical": "sha256",
}  # policy: what the images share of which later parts hold none

log = logging.getLogger(__name__)


def main(raw: Path, clean: Path, files_csv: Path, splits_csv: Path, split_json: Path) -> None:
    """Write each image's part and group, and a summary of counts, copies and withheld images."""
    params = read_section("split", Split)
    files = read_table(files_csv).query("status == 'usable'").reset_index(drop=True)
    near = params.near_copies
    copies = find_copies(files, clean, near.hash_distance, near.correlation)
    patients = find_patients(files.path, params.patients, raw)
    splits = assign(files, copies, patients, params)
    check(splits)
    summary = summarise(files, copies, splits)
    write_table(splits[["path", "label", "split", "group", "sha256"]], splits_csv)
    split_json.write_text(json.dumps(summary, indent=2) + "\n")
    tell(summary)


def find_patients(paths: Sequence[str], params: Patients, raw: Path) -> list[str]:
    """Return each image's patient, "" where none is known.

    Raises `UserError` where images are missed, unless `missing` is `single`, and where all are.
    """
    if params.pattern is not None:
        source, pattern = f"pattern {params.pattern!r}", _compile(params.pattern)
        found = [match[1] or "" if (match := pattern.search(path)) else "" for path in paths]
    elif params.table is not None:
        source, table = f"table {raw / params.table}", _read_patients(raw / params.table)
        found = [
            table.get(path.strip(), "") for path in paths
        ]  # the table has no blanks around its cells
    else:
        return [""] * len(paths)
    missed = [path for path, patient in zip(paths, found, strict=True) if not patient]
    if missed and (params.missing == "refuse" or len(missed) == len(paths)):
        remedy = REMEDY if len(missed) < len(paths) else ""
        raise UserError(
            _tell_missed(source, missed, len(paths))
            + remedy
            + ("" if params.table is None else _tell_rows(table))
        )
    return found


def _tell_missed(source: str, missed: Sequence[str], images: int) -> str:
    examples = ", ".join(missed[:NAMED]) + (", …" if len(missed) > NAMED else "")
    return (
        f"split.patients: the {source} gives no patient for {len(missed)} of {images} images: {examples}. Expected one for each "
        "image, or patients could be in two parts. Complete it"
    )


def _tell_rows(table: Mapping[str, str]) -> str:
    return (
        f". The table names, for example, {', '.join(list(table)[:NAMED])}"
        if table
        else ". The table has no rows"
    )


def assign(
    files: pd.DataFrame, copies: pd.DataFrame, patients: Sequence[str], params: Split
) -> pd.DataFrame:
    """Return path, label, sha256, split and group per image of `files` (columns path, subset, label, sha256)."""
    splits = files[["path", "label", "sha256"]].assign(
        given=files.subset.replace("", "training"),
        group=group(files.path, pd.concat([copies, _same_patient(files.path, patients)])),
        key=[patient or sha for patient, sha in zip(patients, files.sha256, strict=True)],
    )
    carved = [part for part in ("test", "validation") if part not in set(splits.given)]
    anchors = splits.sort_values("path").drop_duplicates("group").set_index("group").key
    drawn = anchors.map(lambda key: _draw(key, carved, params))
    free = splits.given == "training"
    if (
        params.copies != "withhold_identical"
    ):  # there a copy of a test image may validate as well as train
        free &= ~splits.group.isin(splits.group[~free])
    splits["split"] = splits.given.mask(free, splits.group.map(drawn))
    if params.copies in SAME:
        first = splits.groupby(SAME[params.copies]).split.transform(
            lambda parts: min(parts, key=PARTS.index)
        )
        splits["split"] = splits.split.mask(splits.split != first, WITHHELD)
    fillable = [part for part in carved if getattr(params, part) > 0] + (
        ["training"] if carved else []
    )
    movable = free & splits.split.isin(fillable)
    moved = fill_parts(
        splits.assign(key=splits.group.map(anchors), movable=movable), fillable, params.seed
    )
    splits["split"] = splits.split.mask(
        movable & splits.group.isin(list(moved)), splits.group.map(moved)
    )
    if moved:
        log.info(
            "%d groups of small classes changed their part, so that each part has images of each class",
            len(moved),
        )
    return splits


def fill_parts(images: pd.DataFrame, parts: Sequence[str], seed: int) -> dict[str, str]:
    """Return {group: part} of the groups to move, so that each class has an image in each of `parts`.

    `images` have the columns label, split, group, key (of the group) and movable. Into a part that a class lacks goes the
    group of this class with the lowest hash of (seed, part, key) among those that are not missed where they are: each of
    the group's classes keeps another image there. Where there is none, the part stays as it is.
    """
    counts = Counter(zip(images.split, images.label, strict=True))
    movable, moved = images[images.movable], {}
    for part, label in itertools.product(parts, sorted(set(images.label))):
        if counts[part, label] == 0:
            for one in _in_order(movable[movable.label == label], part, seed):
                rows = movable[movable.group == one]
                place, classes = moved.get(one, rows.split.iloc[0]), Counter(rows.label)
                if all(counts[place, name] > count for name, count in classes.items()):
                    moved[one] = part
                    counts.subtract({(place, name): count for name, count in classes.items()})
                    counts.update({(part, name): count for name, count in classes.items()})
                    break
    return moved


def _in_order(images: pd.DataFrame, part: str, seed: int) -> list[str]:
    """Return the groups of images by the hash of (seed, part, key)."""
    keys = images.drop_duplicates("group").set_index("group").key
    return sorted(keys.index, key=lambda one: _hash(f"{seed}:{part}:{keys[one]}"))


def check(splits: pd.DataFrame) -> None:
    """Raise `UserError` naming every class that has no image in a part."""
    counts = pd.crosstab(splits.label, splits.split).reindex(columns=list(PARTS), fill_value=0)
    lacking = [
        f"{label} has no {part} image"
        for label, row in counts.iterrows()
        for part in PARTS
        if row[part] == 0
    ]
    if lacking:
        raise UserError(
            f"every class needs images in each part, but {'; '.join(lacking)}. Add images of it that are no copies of its others "
            "(nor of the same patients), or raise split.validation or split.test where one is 0, in params.yaml."
        )


def summarise(files: pd.DataFrame, copies: pd.DataFrame, splits: pd.DataFrame) -> dict:
    """Return what a person wants to know: counts per part and class, copies by kind, withheld images, label conflicts."""
    label = splits.set_index("path").label
    counts = pd.crosstab(splits.split, splits.label).reindex(
        [*reversed(PARTS), WITHHELD], fill_value=0
    )
    exact = files.assign(given=splits.given)[files.sha256.duplicated(keep=False)].groupby("sha256")
    conflicts = copies[copies.path_a.map(label) != copies.path_b.map(label)]
    return {
        "images": {part: row.to_dict() for part, row in counts.iterrows()},
        "exact_groups": exact.ngroups,
        "exact_surplus": int(files.sha256.duplicated().sum()),
        "exact_groups_across_parts": int((exact.given.nunique() > 1).sum()),
        "pairs": {kind: int((copies.kind == kind).sum()) for kind in ("exact", "near", "mirrored")},
        "groups": int(splits.group.duplicated(keep=False).groupby(splits.group).any().sum()),
        "withheld": sorted(splits.path[splits.split == WITHHELD]),
        "label_conflicts": conflicts[["path_a", "path_b", "kind"]].to_dict("records"),
    }


def tell(summary: dict) -> None:
    """Log the counts."""
    for part, counts in summary["images"].items():
        log.info(
            "%-10s %6d   %s",
            part,
            sum(counts.values()),
            "  ".join(f"{label} {count}" for label, count in counts.items()),
        )
    pairs = ", ".join(f"{count} {kind}" for kind, count in summary["pairs"].items())
    log.info(
        "copies: %s pairs; %d groups of identical files, %d of them across given parts; %d images withheld",
        pairs, summary["exact_groups"], summary["exact_groups_across_parts"], len(summary["withheld"]),
    )  # fmt: skip
    if conflicts := summary["label_conflicts"]:
        first = conflicts[0]
        log.info(
            "warn: %d pairs of copies lie in two classes, such as %s and %s",
            len(conflicts),
            first["path_a"],
            first["path_b"],
        )


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"split.patients.pattern: {pattern!r} is no regular expression: {error}"
        ) from error
    if compiled.groups != 1:
        raise UserError(
            f"split.patients.pattern: {pattern!r} has {compiled.groups} groups, expected one around the patient"
        )
    return compiled


def _read_patients(path: Path) -> dict[str, str]:
    """Return {path: patient}; Windows' separators are read too."""
    if not path.is_file():
        raise UserError(
            f"split.patients.table: {path} is missing, expected a CSV file with columns path and patient"
        )
    table = read_foreign_table(path, ("path", "patient"))
    table["path"] = table.path.str.replace("\\", "/").str.removeprefix("./")
    patients = table[table.patient != ""].drop_duplicates(["path", "patient"])
    double = patients.path[patients.path.duplicated()]
    if len(double):
        raise UserError(
            f"split.patients.table: {path} gives {double.iloc[0]} two patients, expected one; {len(double)} such rows"
        )
    return dict(zip(patients.path, patients.patient, strict=True))


def _same_patient(paths: Sequence[str], patients: Sequence[str]) -> pd.DataFrame:
    """Link each image of a patient to the patient's first, in the columns of `find_copies`."""
    known = (
        pd.DataFrame({"path_b": paths, "patient": patients})
        .query("patient != ''")
        .sort_values("path_b")
    )
    known["path_a"] = known.groupby("patient").path_b.transform("first")
    return known.query("path_a != path_b")[["path_a", "path_b"]]


def _draw(key: str, carved: Sequence[str], params: Split) -> str:
    """Return the part that the hash of `key` and the seed falls into."""
    position = _hash(f"{params.seed}:{key}") / 2**64
    for part in carved:
        share = getattr(params, part)
        if position < share:
            return part
        position -= share
    return "training"


def _hash(text: str) -> int:
    """Return 64 bits of the SHA-256 of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


if __name__ == "__main__":
    run(main)
