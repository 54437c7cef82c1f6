"""Find the images that are new to a model: it was trained neither on them nor on copies of them.

Each version keeps a table of the images that it was given: for training, for validation, which
chose the epoch, and those withheld from training because they copy other images.
"""

import hashlib
from pathlib import Path

import pandas as pd
from numpy import bool_
from numpy.typing import NDArray

from tasks.params.split import NearCopies
from tasks.quality.duplicates import find_closest_duplicates, has_similar_hash

WITHHELD = "withheld"
GIVEN = ["training", "validation", WITHHELD]  # sorted: an image of two splits counts in the first


def select_given_images(splits: pd.DataFrame, files: pd.DataFrame) -> pd.DataFrame:
    """Return sha256, perceptual hash and split of the images that today's models are given."""
    rows = splits.loc[splits.split.isin(GIVEN), ["sha256", "split"]]
    given = rows.sort_values(["sha256", "split"]).drop_duplicates("sha256")
    return given.assign(hash=given.sha256.map(_hashes(files)))[["sha256", "hash", "split"]]


def select_test_images(
    predictions: pd.DataFrame, splits: pd.DataFrame, files: pd.DataFrame
) -> pd.DataFrame:
    """Return path, label, predicted, sha256, group and hash of the test images in predictions.csv.

    The labels of predictions.csv are the truth.
    """
    test = predictions.loc[predictions.split == "test", ["path", "label", "predicted"]]
    test = test.merge(splits[["path", "sha256", "group"]], on="path", validate="one_to_one")
    return test.assign(hash=test.sha256.map(_hashes(files))).sort_values("path", ignore_index=True)


def images_sha256(test: pd.DataFrame) -> str:
    """Return the SHA-256 of test images and their labels. File names do not matter."""
    return hashlib.sha256("\n".join(sorted(test.sha256 + "," + test.label)).encode()).hexdigest()


def find_unseen(
    test: pd.DataFrame, splits: pd.DataFrame, seen: pd.DataFrame, hash_distance: int
) -> NDArray[bool_]:
    """Return for each row of `select_test_images` whether the image is new to a model.

    `seen` are the images that the model was given. Withheld images do not count: no model was
    trained on them. An image is not new if it, or an image of its group in splits.csv (a copy, or
    the same patient), is among the seen images. A seen image that is no longer in splits.csv has no
    group; a test image whose hash is within `hash_distance` bits counts as its copy.
    """
    if "split" in seen:  # older versions kept neither splits nor withheld images
        seen = seen[seen.split != WITHHELD]
    groups = set(splits.group[splits.sha256.isin(seen.sha256)])
    gone = seen.hash[~seen.sha256.isin(splits.sha256)]
    known = test.sha256.isin(seen.sha256) | test.group.isin(groups)
    return ~(known | has_similar_hash(test.hash, gone, hash_distance)).to_numpy()


def find_copies(
    files: pd.DataFrame, given: pd.DataFrame, splits: pd.DataFrame, clean: Path, near: NearCopies
) -> pd.DataFrame:
    """Return the foreign images that copy a given image.

    Columns: path, copy_of, split, kind, correlation, sha256.
    `files` has the columns path, sha256, hash and file. Each copy is listed with the closest
    `given` image. If that image is in today's splits.csv, `copy_of` is its path below `clean`, and
    pixels are compared. Otherwise only hashes are: `copy_of` and `correlation` are blank.
    """
    paths = given.merge(splits[["sha256", "split", "path"]], on="sha256", suffixes=("", "_today"))
    paths = paths.assign(moved=paths.split != paths.split_today)
    first = paths.sort_values(["sha256", "moved", "path"]).drop_duplicates("sha256")
    path = given.sha256.map(first.set_index("sha256").path).astype(object).fillna("")
    file = [str(clean / name) if name and (clean / name).is_file() else "" for name in path]
    known = given.assign(path=path, file=file, hash=given.hash.fillna(""))
    found = find_closest_duplicates(files, known, near.hash_distance, near.correlation)
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
