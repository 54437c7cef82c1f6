"""Describe the images of a run: counts, sizes, samples, quarantine, copies, labels in doubt."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tasks.reporting import figures
from tasks.reporting.language import _
from tasks.reporting.svg import Drawn
from tasks.reporting.thumbnails import Images
from tasks.reporting.words import name_class

SAMPLES = 16
SHOWN = 24  # rows of a list that the report shows; the whole list is in a table
GIVEN = ("training", "withheld")  # a test image with a copy in these parts counts as copied

Facts = dict[str, Any]


def count_images(split: Facts) -> Facts:
    """Return the images of each class in each part, and the imbalance of the training classes."""
    parts = {part: of_class for part, of_class in split["images"].items() if any(of_class.values())}
    training: dict[str, int] = split["images"]["training"]
    smallest = min(training, key=lambda label: training[label])
    largest = max(training, key=lambda label: training[label])
    return {
        "labels": list(training),
        "parts": parts,
        "figure": draw_counts(parts),
        "totals": {
            label: sum(of_class[label] for of_class in parts.values()) for label in training
        },
        "most": max(max(of_class.values()) for of_class in parts.values()),
        "smallest": smallest,
        "largest": largest,
        "imbalance": training[largest] / training[smallest] if training[smallest] else None,
    }


def draw_counts(parts: dict[str, dict[str, int]]) -> Drawn:
    """Draw the images of each class in each part."""
    counts = {_(part): of_class for part, of_class in parts.items()}
    values = "; ".join(
        f"{part}: "
        + ", ".join(f"{name_class(label)} {images}" for label, images in of_class.items())
        for part, of_class in counts.items()
    )
    words = _("Images of each class in each part. {values}").format(values=values)
    return Drawn(figures.draw_counts(counts), words)


def describe_sizes(files: pd.DataFrame) -> Facts:
    """Return the sizes, formats and modes of the usable images."""
    usable = files[files.status == "usable"]
    sizes = usable.groupby(["width", "height"]).size().sort_values(ascending=False, kind="stable")
    (width, height), images = sizes.index[0], sizes.iloc[0]
    return {
        "usable": len(usable),
        "files": len(files),
        "rows": {
            side: (usable[side].min(), usable[side].median(), usable[side].max())
            for side in ("width", "height")
        },
        "different": len(sizes),
        "commonest": {"width": width, "height": height, "images": images},
        "formats": usable.format.value_counts().sort_index().to_dict(),
        "modes": usable["mode"].value_counts().sort_index().to_dict(),
    }


def choose_samples(splits: pd.DataFrame, images: Images) -> list[Facts]:
    """Return sixteen training images, one class after the other, in the order of their hashes."""
    if not images.shown:
        return []
    training = splits[splits.split == "training"].sort_values("sha256", kind="stable")
    in_turn = training.assign(turn=training.groupby("label").cumcount()).sort_values(
        ["turn", "label"], kind="stable"
    )
    return add_pictures(in_turn.head(SAMPLES), images)


def describe_quarantine(quarantine: pd.DataFrame, images: Images) -> Facts:
    """Return the number of files for each reason, and the first files."""
    return {
        "files": len(quarantine),
        "reasons": quarantine.reason.value_counts().sort_index().to_dict(),
        "rows": add_pictures(quarantine.head(SHOWN), images),
    }


def describe_copies(split: Facts, splits: pd.DataFrame, images: Images) -> Facts:
    """Return the copies in `split.json`, the copied test images, and the pairs in two classes."""
    given, trained = (
        set(splits.group[splits.split.isin(parts)]) for parts in (GIVEN, ["training"])
    )
    test = splits[splits.split == "test"]
    labels = dict(zip(splits.path, splits.label, strict=True))
    conflicts = [
        {
            "kind": row["kind"],
            "pair": [
                {"path": path, "label": labels[path], "picture": images.show(path)}
                for path in (row["path_a"], row["path_b"])
            ],
        }
        for row in split["label_conflicts"][:SHOWN]
    ]
    return {
        "pairs": split["pairs"],
        "groups": split["groups"],
        "withheld": len(split["withheld"]),
        "test": len(test),
        "test_with_copies": int(test.group.isin(given).sum()),
        "test_with_trained_copies": int(test.group.isin(trained).sum()),
        "conflicts": conflicts,
        "conflicts_in_all": len(split["label_conflicts"]),
    }


def describe_suspects(suspects: pd.DataFrame, groups: Mapping[str, str], images: Images) -> Facts:
    """Return the images whose label is in doubt, in the order of the table.

    Only the first image of each group of copies is shown. `groups` is {path: group}.
    """
    first = suspects[~suspects.path.map(groups).duplicated()]
    return {"images": len(suspects), "rows": add_pictures(first.head(SHOWN), images)}


def add_pictures(rows: pd.DataFrame, images: Images) -> list[Facts]:
    """Return the rows, each with a thumbnail as `picture`."""
    return [row | {"picture": images.show(row["path"])} for row in rows.to_dict("records")]
