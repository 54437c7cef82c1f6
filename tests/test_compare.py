"""Validation alone chooses the winner; only the architectures that params list take part."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.compare import accuracy_interval, main, rank
from tasks.evaluate import score
from tasks.tables import write_table

ARCHITECTURES = {"first": 0.5, "second": 0.8, "third": 0.65}  # share of validation images that are right
SIZES = {"first": 100, "second": 300, "third": 200}


def predictions(right: float, test_right: float, seed: int) -> pd.DataFrame:
    """Predictions of 40 images in each part, so many of them right."""
    rng = np.random.default_rng(seed)
    shares = {"training": 0.9, "validation": right, "test": test_right}
    rows = []
    for part, share in shares.items():
        for number in range(40):
            label, hit = number % 2, number < share * 40
            top = rng.uniform(0.5, 1)
            p_a = top if (label == 0) == hit else 1 - top
            rows.append((f"{part}{number}.png", "ab"[label], part, "ab"[label] if hit else "ba"[label], p_a, 1 - p_a))
    return pd.DataFrame(rows, columns=["path", "label", "split", "predicted", "p_a", "p_b"])


def write_results(name: str, table: pd.DataFrame) -> None:
    folder = Path("results") / name
    write_table(table, folder / "predictions.csv")
    (folder / "metrics.json").write_text(json.dumps(score(table, 5)))
    timing = {"parameters": SIZES[name], "train_seconds": 1.5, "epoch_seconds": [0.5, 1.0]}
    (folder / "timing.json").write_text(json.dumps(timing))


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed = "\n".join(f"  {name}: {{like: cnn_a, filters: [4]}}" for name in ARCHITECTURES)
    Path("params.yaml").write_text(f"compare: {{rank_by: val_macro_f1}}\narchitectures:\n{listed}\n")
    for name, right in ARCHITECTURES.items():
        write_results(name, predictions(right, test_right=1 - right, seed=0))


def compare() -> tuple[list[str], dict]:
    main(Path("results"), Path("comparison.csv"), Path("comparison.json"))
    return pd.read_csv("comparison.csv").architecture.tolist(), json.loads(Path("comparison.json").read_text())


def test_the_best_on_validation_wins_though_it_is_the_worst_on_test() -> None:
    order, comparison = compare()
    assert order == comparison["architectures"] == ["second", "third", "first"]
    assert (comparison["winner"], comparison["ranked_by"]) == ("second", "val_macro_f1")
    assert (comparison["val_accuracy"], comparison["test_accuracy"]) == (0.8, pytest.approx(0.2))


@pytest.mark.parametrize("seed", range(6))
def test_test_rows_never_change_the_order(seed: int) -> None:
    """Property: whatever the test images are taken for, the ranking stays."""
    rng = np.random.default_rng(seed)
    for name, right in ARCHITECTURES.items():
        write_results(name, predictions(right, test_right=rng.choice([0.0, 0.3, 1.0]), seed=0))
    order, comparison = compare()
    assert order == ["second", "third", "first"] and comparison["winner"] == "second"


def test_validation_rows_do_change_the_order() -> None:
    write_results("first", predictions(0.95, test_right=0, seed=0))
    assert compare()[0] == ["first", "second", "third"]


def test_what_params_do_not_list_is_ignored() -> None:
    """The folder of an architecture that was removed stays behind, whole or in ruins."""
    Path("params.yaml").write_text("architectures: {first: {like: cnn_a}, third: {like: cnn_a}}\n")
    assert compare()[0] == ["third", "first"]
    for file in Path("results/second").iterdir():
        file.write_text("ruins")
    assert compare()[1]["winner"] == "third"


def test_between_equals_the_smaller_wins_and_then_the_name() -> None:
    table = pd.DataFrame({"architecture": ["c", "b", "a", "d"], "val_accuracy": [0.5] * 4, "parameters": [10, 20, 20, 5]})
    assert rank(table, "val_accuracy").architecture.tolist() == ["d", "c", "a", "b"]


@pytest.mark.parametrize("by", ["val_macro_f1", "val_accuracy", "val_balanced_accuracy"])
def test_params_say_which_score_ranks(by: str) -> None:
    Path("params.yaml").write_text(
        f"compare: {{rank_by: {by}}}\narchitectures: {{first: {{like: cnn_a}}, second: {{like: cnn_a}}}}\n"
    )
    for name, best in (("first", by), ("second", "")):
        scores = json.loads(Path(f"results/{name}/metrics.json").read_text())
        scores |= {key: 0.9 if key == best else 0.5 for key in ("val_macro_f1", "val_accuracy", "val_balanced_accuracy")}
        Path(f"results/{name}/metrics.json").write_text(json.dumps(scores))
    Path("results/first/timing.json").write_text('{"parameters": 999, "train_seconds": 1, "epoch_seconds": []}')
    assert compare()[1]["winner"] == "first"


def test_a_row_says_what_was_compared() -> None:
    compare()
    row = pd.read_csv("comparison.csv").set_index("architecture").loc["third"]
    assert (row.filters, row.kernel, row.dropout, row.batch_size) == (4, 3, 0.3, 32)
    assert (row.parameters, row.epochs, row.seconds) == (200, 2, 1.5)
    assert (row.train_accuracy, row.val_accuracy, row.test_accuracy, row.overfitting) == (0.9, 0.65, 0.35, "strong")
    assert row.test_accuracy_low < 0.35 < row.test_accuracy_high


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(8, 10, 0.490162, 0.943317), (0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (1, 1, 0.206549, 1.0)],
)
def test_wilsons_interval(right: int, of: int, low: float, high: float) -> None:
    rows = [("a", "a" if number < right else "b", "test") for number in range(of)] + [("a", "b", "validation")] * 50
    assert accuracy_interval(pd.DataFrame(rows, columns=["label", "predicted", "split"])) == pytest.approx((low, high), abs=1e-6)


def test_results_that_are_missing_are_an_error() -> None:
    Path("results/first/metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match="results/first/metrics.json"):
        compare()
