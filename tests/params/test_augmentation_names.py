"""An augmentation is a name, a mapping, or a mapping that starts from a name."""

import pytest
from pydantic import ValidationError

from tasks.params.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    Elastic,
    Mixup,
    expand_augmentation,
)


def test_a_name_stands_for_its_row() -> None:
    rows = {name: Augmentation(**row) for name, row in AUGMENTATIONS.items()}
    assert {name: Augmentation.model_validate(name) for name in rows} == rows
    assert {name: Augmentation.model_validate({"like": name}) for name in rows} == rows


def test_the_reference_comparison_has_seven_kinds() -> None:
    kinds = Augmentation.model_validate("comparison").model_dump(exclude_defaults=True)
    assert sorted(kinds) == [
        "brightness",
        "height_shift",
        "horizontal_flip",
        "rotation",
        "shear",
        "width_shift",
        "zoom",
    ]


def test_keys_differ_from_the_name() -> None:
    changed = Augmentation.model_validate(
        {"like": "light", "rotation": 20, "elastic": {}, "mixup": {"alpha": 1}}
    )
    assert (changed.rotation, changed.zoom) == (20, AUGMENTATIONS["light"]["zoom"])
    assert (changed.elastic, changed.mixup) == (Elastic(scale=0.02, grid=3), Mixup(alpha=1))


def test_an_expanded_name_has_every_key() -> None:
    assert (
        set(expand_augmentation("light"))
        == set(expand_augmentation({"like": "light", "zoom": 0}))
        == set(Augmentation.model_fields)
    )


def test_an_unknown_name_comes_back_unchanged() -> None:
    given = [None, {"rotation": 3}, "lite", {"like": "lite"}, {"like": ["light"]}, 3]
    assert [expand_augmentation(one) for one in given] == given


@pytest.mark.parametrize("given", ["lite", {"like": ["light"]}])
def test_an_unknown_name_lists_the_known_ones(given: object) -> None:
    with pytest.raises(
        ValidationError, match="unknown augmentation; known are comparison, photo_filter, light"
    ):
        Augmentation.model_validate(given)
