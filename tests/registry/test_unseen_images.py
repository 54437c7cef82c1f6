"""A test image is not new to a model that saw it, a copy of it, or an image of the same patient."""

import numpy as np
import pandas as pd
from PIL import Image

from tasks.quality.duplicates import has_similar_hash, perceptual_hash
from tasks.registry.unseen_images import (
    find_unseen,
    images_sha256,
    select_given_images,
    select_test_images,
)

SPLITS = pd.DataFrame(
    [
        ("t/1", "x", "test", "t/1", "sha1"),
        ("t/2", "x", "test", "old/9", "sha2"),
        ("t/3", "y", "test", "t/3", "sha3"),
        ("old/9", "x", "withheld", "old/9", "sha9"),
        ("r/1", "x", "training", "r/1", "r1"),
        ("r/2", "y", "training", "r/2", "r2"),
        ("v/1", "y", "validation", "v/1", "v1"),
    ],
    columns=["path", "label", "split", "group", "sha256"],
)
PREDICTIONS = SPLITS[SPLITS.split != "withheld"][["path", "split"]].assign(
    label="of the model", predicted="said"
)


def picture(seed: int, size: int = 96) -> Image.Image:
    """Draw a picture of coarse noise."""
    noise = np.random.default_rng(seed).integers(0, 255, (12, 12)).astype(np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


FILES = pd.DataFrame(
    {
        "sha256": SPLITS.sha256,
        "hash": [perceptual_hash(picture(seed)) for seed in range(len(SPLITS))],
    }
)
TEST = select_test_images(PREDICTIONS, SPLITS, FILES)


def new(*seen: tuple[str, ...]) -> list[str]:
    """Return the test images that are new to a model with these rows: SHA-256, hash and split."""
    table = pd.DataFrame(seen, columns=["sha256", "hash", "split"][: max(map(len, seen))])
    return TEST.path[find_unseen(TEST, SPLITS, table, 32)].tolist()


def test_the_truth_is_that_of_the_predictions() -> None:
    assert TEST.path.tolist() == ["t/1", "t/2", "t/3"]
    assert set(TEST.label) == {"of the model"} and TEST.sha256.tolist() == ["sha1", "sha2", "sha3"]


def test_validation_and_withheld_images_are_given_too() -> None:
    given = select_given_images(SPLITS, FILES)
    assert dict(zip(given.sha256, given.split, strict=True)) == {
        "r1": "training",
        "r2": "training",
        "v1": "validation",
        "sha9": "withheld",
    }
    assert given.hash.tolist() == [
        FILES.hash[FILES.sha256 == sha256].item() for sha256 in given.sha256
    ]


def test_an_image_of_two_splits_counts_in_the_first() -> None:
    rows = pd.DataFrame(
        {
            "sha256": ["a", "a", "b", "b"],
            "split": ["validation", "training", "withheld", "validation"],
        }
    )
    given = select_given_images(rows, FILES)
    assert given.split.tolist() == ["training", "validation"]


def test_todays_own_split_leaves_all_test_images() -> None:
    """A copy of t/2 was withheld, so no model has seen it."""
    assert new(*select_given_images(SPLITS, FILES).itertuples(index=False, name=None)) == [
        "t/1",
        "t/2",
        "t/3",
    ]
    assert new(("sha9", "")) == [
        "t/1",
        "t/3",
    ]  # an older version, which kept no split, was trained on it


def test_a_seen_image_is_not_new() -> None:
    assert new(("sha1", "")) == ["t/2", "t/3"]


def test_a_copy_of_a_deleted_image_is_found_by_its_hash() -> None:
    mirrored = picture(2, size=200).transpose(
        Image.Transpose.FLIP_LEFT_RIGHT
    )  # t/3 in another size
    assert new(("gone", perceptual_hash(mirrored))) == ["t/1", "t/2"]
    assert new(("gone", perceptual_hash(picture(99)))) == ["t/1", "t/2", "t/3"]
    assert new(("gone", "")) == ["t/1", "t/2", "t/3"]


def test_hashes_are_similar_up_to_a_distance() -> None:
    hashes = [perceptual_hash(picture(seed)) for seed in (0, 1)]
    assert has_similar_hash([hashes[0], "", hashes[1]], [hashes[1], ""], 0).tolist() == [
        False,
        False,
        True,
    ]
    assert (
        has_similar_hash(hashes, [], 240).tolist() == [False, False]
        and has_similar_hash([], hashes, 240).tolist() == []
    )


def test_labels_change_the_hash_of_the_images_and_names_do_not() -> None:
    renamed = TEST.assign(path=["c", "b", "a"]).sort_values("path")
    assert images_sha256(renamed) == images_sha256(TEST)
    assert images_sha256(TEST.assign(label="other")) != images_sha256(TEST)
