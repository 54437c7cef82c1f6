"""What is listed for a person to look at, counted by hand."""

import pandas as pd
import pytest

from tasks.scoring.review import UNCERTAIN, find_shared_suspects, find_suspects, list_errors


def table(rows: list[tuple], split: str = "test") -> pd.DataFrame:
    """Predictions of two classes from (path, label, p_x)."""
    frame = pd.DataFrame(rows, columns=["path", "label", "p_x"])
    return frame.assign(
        split=split, predicted=["x" if p >= 0.5 else "y" for p in frame.p_x], p_y=1 - frame.p_x
    )


def test_errors_begin_with_the_most_confident_and_the_least_certain_follow() -> None:
    found = list_errors(
        table(
            [
                ("b", "x", 0.25),
                ("c", "x", 0.875),
                ("d", "y", 0.75),
                ("a", "x", 0.25),
                ("e", "x", 0.125),
            ]
        )
    )
    assert found.columns.tolist() == ["path", "label", "predicted", "confidence", "p_label", "kind"]
    assert found[found.kind == "worst"].values.tolist() == [
        ["e", "x", "y", 0.875, 0.125, "worst"], ["a", "x", "y", 0.75, 0.25, "worst"],
        ["b", "x", "y", 0.75, 0.25, "worst"],
        ["d", "y", "x", 0.75, 0.25, "worst"],
    ]  # fmt: skip
    assert found[found.kind == "uncertain"].path.tolist() == ["a", "b", "d", "c", "e"]
    assert found.kind.tolist() == ["worst"] * 4 + ["uncertain"] * 5


def test_of_many_images_the_least_certain_are_few() -> None:
    found = list_errors(
        table([(f"{number:03}", "x", 0.5 + number / 1000) for number in range(200)])
    )
    assert found.path.tolist() == [f"{number:03}" for number in range(UNCERTAIN)] and set(
        found.kind
    ) == {"uncertain"}


def test_a_suspect_looks_as_sure_as_the_images_of_the_other_class() -> None:
    """Images labelled y have y 0.85 on the average: s reaches it; w is wrong, too, and does not."""
    rows = [
        ("a", "x", 0.9),
        ("b", "x", 0.9),
        ("w", "x", 0.4),
        ("s", "x", 0.1),
        ("c", "y", 0.1),
        ("d", "y", 0.2),
    ]
    found = find_suspects(table(rows))
    assert found.values.tolist() == [["s", "x", "test", "y", 0.9, 0.1]]
    assert found.columns.tolist() == [
        "path",
        "label",
        "split",
        "suggested",
        "confidence",
        "p_label",
    ]


def test_the_surest_suspects_come_first() -> None:
    rows = [(f"x{number}", "x", 0.95) for number in range(20)] + [
        (f"y{number}", "y", 0.05) for number in range(20)
    ]
    found = find_suspects(
        table([*rows, ("d", "y", 0.97), ("c", "y", 0.99), ("b", "x", 0.03), ("a", "x", 0.03)])
    )
    assert found.path.tolist() == ["c", "a", "b", "d"] and found.suggested.tolist() == [
        "x",
        "y",
        "y",
        "x",
    ]


def test_one_image_and_a_class_without_images_suggest_nothing() -> None:
    assert find_suspects(table([("a", "x", 0.1)])).empty
    assert find_suspects(table([("a", "x", 0.1), ("b", "x", 0.9)])).empty


def test_models_doubt_together() -> None:
    """Of s, labelled x, the three give x 0, 0.25 and 0.25; the third predicts it all the same."""
    first = table(
        [
            ("a", "y", 0.1),
            ("c", "x", 0.9),
            ("d", "x", 0.95),
            ("s", "x", 0.0),
            ("t", "x", 0.95),
            ("u", "y", 0.5),
        ]
    )
    second = table(
        [
            ("a", "y", 0.1),
            ("c", "x", 0.9),
            ("d", "x", 0.85),
            ("s", "x", 0.25),
            ("t", "x", 0.95),
            ("u", "y", 0.5),
        ]
    )
    third = second.assign(predicted=second.label)
    found = find_shared_suspects([first, second, third])
    assert found.columns.tolist() == [
        "path",
        "label",
        "split",
        "suggested",
        "disagree",
        "models",
        "confidence",
        "p_label",
    ]
    (row,) = found.values.tolist()
    assert row[:6] == ["s", "x", "test", "y", 2, 3] and row[6:] == pytest.approx(
        [1 - 0.5 / 3, 0.5 / 3]
    )
