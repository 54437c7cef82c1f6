"""The chapter on the images: how many, how they look, which could not be used, which are copies, which labels are in doubt."""

from pathlib import Path

import pandas as pd

from tasks.reporting.thumbnails import thumbnail

SAMPLES = 16
SHOWN = 24  # pictures of a list; what is left is in the table that the text names
GIVEN = ("training", "withheld")  # parts that make a test image of the same group a copy


def count_images(split: dict) -> dict[str, object]:
    """Return the classes, the images of each in every part, and how uneven the training classes are."""
    parts = {part: of_class for part, of_class in split["images"].items() if any(of_class.values())}
    training = split["images"]["training"]
    smallest, largest = min(training, key=training.get), max(training, key=training.get)
    return {
        "labels": list(training),
        "parts": parts,
        "totals": {
            label: sum(of_class[label] for of_class in parts.values()) for label in training
        },
        "most": max(max(of_class.values()) for of_class in parts.values()),
        "smallest": smallest,
        "largest": largest,
        "imbalance": training[largest] / training[smallest] if training[smallest] else None,
    }


def describe_sizes(files: pd.DataFrame) -> dict[str, object]:
    """Return the range of widths and heights of the usable images, the commonest size, and their formats and modes."""
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


def choose_samples(splits: pd.DataFrame, clean: Path, pictures: bool) -> list[dict[str, str]]:
    """Return sixteen training images, the classes in turn, in the order of their content's hash."""
    if not pictures:
        return []
    training = splits[splits.split == "training"].sort_values("sha256", kind="stable")
    in_turn = training.assign(turn=training.groupby("label").cumcount()).sort_values(
        ["turn", "label"], kind="stable"
    )
    return with_pictures(in_turn.head(SAMPLES), clean)


def describe_quarantine(
    quarantine: pd.DataFrame, folder: Path, pictures: bool
) -> dict[str, object]:
    """Return the files that cannot be used by reason, and the first of them one by one."""
    return {
        "files": len(quarantine),
        "reasons": quarantine.reason.value_counts().sort_index().to_dict(),
        "rows": with_pictures(quarantine.head(SHOWN), folder, pictures),
    }


def describe_copies(
    split: dict, splits: pd.DataFrame, clean: Path, pictures: bool
) -> dict[str, object]:
    """Return what `split.json` says of copies, how many test images have one in training, and the pairs of two classes."""
    given, trained = (
        set(splits.group[splits.split.isin(parts)]) for parts in (GIVEN, ["training"])
    )
    test = splits[splits.split == "test"]
    labels = dict(zip(splits.path, splits.label, strict=True))
    conflicts = [
        {
            "kind": pair["kind"],
            "pair": [
                describe_image(pair[side], labels[pair[side]], clean, pictures)
                for side in ("path_a", "path_b")
            ],
        }
        for pair in split["label_conflicts"][:SHOWN]
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


def describe_suspects(
    suspects: pd.DataFrame, groups: dict[str, str], clean: Path, pictures: bool
) -> dict[str, object]:
    """Return the images whose label the models doubt, the most doubtful first as in the table, one of each group of copies."""
    alone = suspects[~suspects.path.map(groups).duplicated()]
    return {
        "images": len(suspects),
        "groups": len(alone),
        "rows": with_pictures(alone.head(SHOWN), clean, pictures),
    }


def with_pictures(
    rows: pd.DataFrame, folder: Path, pictures: bool = True
) -> list[dict[str, object]]:
    """Return the rows, each with its `picture`."""
    return [
        row | {"picture": thumbnail(folder / row["path"]) if pictures else ""}
        for row in rows.to_dict("records")
    ]


def describe_image(path: str, label: str, clean: Path, pictures: bool) -> dict[str, str]:
    """Return one image with its label and picture."""
    return {"path": path, "label": label, "picture": thumbnail(clean / path) if pictures else ""}
