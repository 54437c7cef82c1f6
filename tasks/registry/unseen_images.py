"""Which images may judge a model: those that it was not trained on, nor on a copy of them.

With each version the images that it was given are kept: those it was trained on, those that chose its epoch, and those that
were withheld from training because they copy others.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.quality.duplicates import find_closest_duplicates, has_similar_hash

WITHHELD = "withheld"
GIVEN = [
    "training",
    "validation",
    WITHHELD,
]  # an image of several parts counts in the first of them


def images_given(splits: pd.DataFrame, files: pd.DataFrame) -> pd.DataFrame:
    """Return sha256, perceptual hash and split of the images that today's models are given, from splits.csv and files.csv."""
    rows = splits.loc[splits.split.isin(GIVEN), ["sha256", "split"]].sort_values(
        ["sha256", "split"]
    )  # as GIVEN is sorted
    given = rows.drop_duplicates("sha256")
    return given.assign(hash=given.sha256.map(_hashes(files)))[["sha256", "hash", "split"]]


def judging_images(
    predictions: pd.DataFrame, splits: pd.DataFrame, files: pd.DataFrame
) -> pd.DataFrame:
    """Return path, label, predicted, sha256, group and hash of the test images of predictions.csv, whose labels are the truth."""
    test = predictions.loc[predictions.split == "test", ["path", "label", "predicted"]]
    test = test.merge(splits[["path", "sha256", "group"]], on="path", validate="one_to_one")
    return test.assign(hash=test.sha256.map(_hashes(files))).sort_values("path", ignore_index=True)


def images_sha256(test: pd.DataFrame) -> str:
    """Return the SHA-256 of test images and their labels, whatever their names."""
    return hashlib.sha256("\n".join(sorted(test.sha256 + "," + test.label)).encode()).hexdigest()


def unseen(
    test: pd.DataFrame, splits: pd.DataFrame, seen: pd.DataFrame, hash_distance: int
) -> np.ndarray:
    """Tell of each row of `judging_images` whether neither it nor a copy of it is among the images `seen` but for withheld ones.

    Copies, and images of one patient, are those of one group in today's splits.csv. An image that was seen and is gone since
    has no group: of those, a test image whose hash is within `hash_distance` bits counts as a copy.
    """
    if "split" in seen:  # a version of old has kept no withheld images
        seen = seen[seen.split != WITHHELD]
    groups = set(splits.group[splits.sha256.isin(seen.sha256)])
    gone = seen.hash[~seen.sha256.isin(splits.sha256)]
    return ~(
        test.sha256.isin(seen.sha256)
        | test.group.isin(groups)
        | has_similar_hash(test.hash, gone, hash_distance)
    ).to_numpy()


def overlap(
    files: pd.DataFrame,
    given: pd.DataFrame,
    splits: pd.DataFrame,
    clean: Path,
    hash_distance: int,
    correlation: float,
) -> pd.DataFrame:
    """Return of each foreign image that copies a `given` one the closest: path, copy_of, split, kind, correlation, sha256.

    `files` have the columns path, sha256, hash and file. Where today's splits.csv names a given image, `copy_of` is its path below
    `clean`, and pixels decide; else it is blank, and so is the correlation of a pair that the hash alone decided.
    """
    places = given.merge(splits[["sha256", "split", "path"]], on="sha256", suffixes=("", "_today"))
    places = places.assign(moved=places.split != places.split_today).sort_values(
        ["sha256", "moved", "path"]
    )
    path = given.sha256.map(places.drop_duplicates("sha256").set_index("sha256").path).fillna("")
    file = [str(clean / name) if name and (clean / name).is_file() else "" for name in path]
    known = given.assign(path=path, file=file, hash=given.hash.fillna(""))
    found = find_closest_duplicates(files, known, hash_distance, correlation)
    copies = known.iloc[found.known].reset_index(drop=True)
    return pd.DataFrame(
        {
            "path": files.path.iloc[found.image].to_numpy(),
            "copy_of": copies.path,
            "split": copies.split,
            "kind": found.kind,
            "correlation": found.correlation,
            "sha256": copies.sha256,
        }
    )


def _hashes(files: pd.DataFrame) -> pd.Series:
    return files.drop_duplicates("sha256").set_index("sha256").hash
