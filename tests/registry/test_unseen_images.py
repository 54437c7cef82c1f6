"""A test image that a model has seen, or a copy or a patient of which it has seen, does not judge it."""

import numpy as np
import pandas as pd
from PIL import Image

from tasks.quality.duplicates import has_similar_hash, perceptual_hash
from tasks.registry.unseen_images import images_given, images_sha256, judging_images, unseen

SPLITS = pd.DataFrame(
    [
        ("t/1", "x", "test", "t/1", "sha1"), ("t/2", "x", "test", "old/9", "sha2"), ("t/3", "y", "test", "t/3", "sha3"),
        ("old/9", "x", "withheld", "old/9", "sha9"), ("r/1", "x", "training", "r/1", "r1"), ("r/2", "y", "training", "r/2", "r2"),
        ("v/1", "y", "validation", "v/1", "v1"),
    ],
    columns=["path", "label", "split", "group", "sha256"],
)  # fmt: skip
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
TEST = judging_images(PREDICTIONS, SPLITS, FILES)


def new(*seen: tuple[str, ...]) -> list[str]:
    """Return the test images that may judge a model that has seen these images (SHA-256, hash and, lately, split)."""
    table = pd.DataFrame(seen, columns=["sha256", "hash", "split"][: max(map(len, seen))])
    return TEST.path[unseen(TEST, SPLITS, table, 32)].tolist()


def test_the_truth_is_that_of_the_predictions() -> None:
    assert TEST.path.tolist() == ["t/1", "t/2", "t/3"]
    assert set(TEST.label) == {"of the model"} and TEST.sha256.tolist() == ["sha1", "sha2", "sha3"]


def test_what_chose_the_epoch_or_was_withheld_was_given_too() -> None:
    given = images_given(SPLITS, FILES)
    assert dict(zip(given.sha256, given.split, strict=True)) == {
        "r1": "training", "r2": "training", "v1": "validation", "sha9": "withheld",
    }  # fmt: skip
    assert given.hash.tolist() == [
        FILES.hash[FILES.sha256 == sha256].item() for sha256 in given.sha256
    ]


def test_an_image_of_several_parts_counts_in_the_first() -> None:
    rows = pd.DataFrame(
        {
            "sha256": ["a", "a", "b", "b"],
            "split": ["validation", "training", "withheld", "validation"],
        }
    )
    given = images_given(rows, FILES)
    assert given.split.tolist() == ["training", "validation"]


def test_todays_own_split_leaves_all_test_images() -> None:
    """Of t/2 a copy was withheld, so that no model has seen it."""
    assert new(*images_given(SPLITS, FILES).itertuples(index=False, name=None)) == [
        "t/1",
        "t/2",
        "t/3",
    ]
    assert new(("sha9", "")) == ["t/1", "t/3"]  # which a version that kept no split was trained on


def test_an_image_that_was_seen_is_out() -> None:
    assert new(("sha1", "")) == ["t/2", "t/3"]


def test_a_copy_of_an_image_that_is_gone_is_told_by_its_hash() -> None:
    mirrored = picture(2, size=200).transpose(
        Image.Transpose.FLIP_LEFT_RIGHT
    )  # of t/3, of another size
    assert new(("gone", perceptual_hash(mirrored))) == ["t/1", "t/2"]
    assert new(("gone", perceptual_hash(picture(99)))) == ["t/1", "t/2", "t/3"]
    assert new(("gone", "")) == ["t/1", "t/2", "t/3"]


def test_hashes_alike() -> None:
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


def test_the_images_name_is_no_matter_but_its_label_is() -> None:
    renamed = TEST.assign(path=["c", "b", "a"]).sort_values("path")
    assert images_sha256(renamed) == images_sha256(TEST)
    assert images_sha256(TEST.assign(label="other")) != images_sha256(TEST)
