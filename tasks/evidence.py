"""Which test images may judge a model: those that it was not trained on, nor on a copy of them.

With each version the images that it has seen are kept: those it was trained on, and those that chose its epoch.
"""

import hashlib

import numpy as np
import pandas as pd

from tasks.imaging.duplicates import alike

SEEN = ["training", "validation"]


def images_seen(splits: pd.DataFrame, files: pd.DataFrame) -> pd.DataFrame:
    """Return sha256 and perceptual hash of the images that today's models see, from splits.csv and files.csv."""
    seen = splits.loc[splits.split.isin(SEEN), ["sha256"]].drop_duplicates().sort_values("sha256")
    return seen.assign(hash=seen.sha256.map(_hashes(files)))


def judging_images(predictions: pd.DataFrame, splits: pd.DataFrame, files: pd.DataFrame) -> pd.DataFrame:
    """Return path, label, predicted, sha256, group and hash of the test images of predictions.csv, whose labels are the truth."""
    test = predictions.loc[predictions.split == "test", ["path", "label", "predicted"]]
    test = test.merge(splits[["path", "sha256", "group"]], on="path", validate="one_to_one")
    return test.assign(hash=test.sha256.map(_hashes(files))).sort_values("path", ignore_index=True)


def images_sha256(test: pd.DataFrame) -> str:
    """Return the SHA-256 of test images and their labels, whatever their names."""
    return hashlib.sha256("\n".join(sorted(test.sha256 + "," + test.label)).encode()).hexdigest()


def unseen(test: pd.DataFrame, splits: pd.DataFrame, seen: pd.DataFrame, hash_distance: int) -> np.ndarray:
    """Tell of each row of `judging_images` whether neither it nor a copy of it is among the images `seen`.

    Copies, and images of one patient, are those of one group in today's splits.csv. An image that was seen and is gone since
    has no group: of those, a test image whose hash is within `hash_distance` bits counts as a copy.
    """
    groups = set(splits.group[splits.sha256.isin(seen.sha256)])
    gone = seen.hash[~seen.sha256.isin(splits.sha256)]
    return ~(test.sha256.isin(seen.sha256) | test.group.isin(groups) | alike(test.hash, gone, hash_distance)).to_numpy()


def _hashes(files: pd.DataFrame) -> pd.Series:
    return files.drop_duplicates("sha256").set_index("sha256").hash
