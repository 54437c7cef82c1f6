"""Only validation scores choose the winner of a question. Only listed architectures take part."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from tasks.compare import COMPARISON_COLUMNS, Files, main, rank, to_text
from tasks.errors import UserError
from tasks.params.architectures import ARCHITECTURES as TABLE
from tasks.params.compare import Compare
from tasks.results import write_timing
from tasks.scoring.evaluation import score_predictions
from tasks.scoring.paired_tests import PAIRED_TESTS_COLUMNS
from tasks.scoring.predictions import add_groups
from tasks.scoring.review import SUSPECTS_COLUMNS
from tasks.scoring.shared_questions import SHARED_QUESTIONS_COLUMNS
from tasks.tables import read_table, write_table

pytestmark = pytest.mark.slow

ARCHITECTURES = {
    "first": 0.5,
    "second": 0.8,
    "third": 0.65,
}  # share of validation images that are right
SIZES = {"first": 100, "second": 300, "third": 200}
TIMES = {"train_seconds": 1.5, "epoch_seconds": [0.5, 1.0]}


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
            rows.append(
                (
                    f"{part}{number}.png",
                    "ab"[label],
                    part,
                    "ab"[label] if hit else "ba"[label],
                    p_a,
                    1 - p_a,
                )
            )
    return pd.DataFrame(rows, columns=["path", "label", "split", "predicted", "p_a", "p_b"])


def write_results(name: str, table: pd.DataFrame) -> None:
    folder = Path("results") / name
    write_table(table, folder / "predictions.csv")
    scores = score_predictions(add_groups(table, read_table(Path("splits.csv"))), 1.5, 5) | {
        "best_epoch": 2
    }
    (folder / "metrics.json").write_text(json.dumps(scores))
    (folder / "size.json").write_text(json.dumps({"parameters": SIZES.get(name, 50)}))
    (folder / "history.csv").write_text("epoch\n1\n2\n")
    write_timing(TIMES, folder)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with three models and their results. Tests only read it."""
    root = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        listed = "\n".join(f"  {name}: {{like: cnn_a, filters: [4]}}" for name in ARCHITECTURES)
        Path("params.yaml").write_text(
            f"compare: {{rank_by: val_macro_f1}}\narchitectures:\n{listed}\n"
        )
        splits = predictions(1, 1, seed=0)[["path", "label", "split"]]
        write_table(splits.assign(group=splits.path), Path("splits.csv"))
        Path("ensembles").mkdir()
        Path("ensembles/ensembles.json").write_text("{}")
        for name, right in ARCHITECTURES.items():
            write_results(name, predictions(right, test_right=1 - right, seed=0))
    return root


@pytest.fixture(scope="module")
def compared(
    evaluated: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str], dict]:
    """Compare its models, and return what `compare` returns. Tests only read it."""
    root = tmp_path_factory.mktemp("compared")
    shutil.copytree(evaluated, root, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        return root, *compare()


@pytest.fixture(autouse=True)
def results(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the folder, and make the copy the current folder."""
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def compare() -> tuple[list[str], dict]:
    written = ["comparison.csv", "comparison.json", "shared.csv", "paired.csv", "suspects.csv"]
    main(Files(Path("splits.csv"), Path("results"), Path("ensembles"), *map(Path, written)))
    return pd.read_csv("comparison.csv").architecture.tolist(), json.loads(
        Path("comparison.json").read_text()
    )


def test_the_best_on_validation_wins_though_it_is_the_worst_on_test(
    compared: tuple[Path, list[str], dict],
) -> None:
    _, order, comparison = compared
    assert order == comparison["architectures"] == ["second", "third", "first"]
    assert (comparison["winner"], comparison["ranked_by"]) == ("second", "val_macro_f1")
    assert (comparison["val_accuracy"], comparison["test_accuracy"]) == (0.8, pytest.approx(0.2))


@pytest.mark.parametrize("seed", range(2))
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
    table = pd.DataFrame(
        {
            "architecture": ["c", "b", "a", "d"],
            "val_accuracy": [0.5] * 4,
            "parameters": [10, 20, 20, 5],
        }
    )
    ranked = rank(table.assign(question="all classes"), Compare(rank_by="val_accuracy"))
    assert ranked.architecture.tolist() == ["d", "c", "a", "b"] and ranked["rank"].tolist() == [
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("by", ["val_accuracy", "val_balanced_accuracy"])
def test_params_say_which_score_ranks(by: str) -> None:
    Path("params.yaml").write_text(
        f"compare: {{rank_by: {by}}}\n"
        "architectures: {first: {like: cnn_a}, second: {like: cnn_a}}\n"
    )
    for name, best in (("first", by), ("second", "")):
        scores = json.loads(Path(f"results/{name}/metrics.json").read_text())
        scores |= {
            key: 0.9 if key == best else 0.5
            for key in ("val_macro_f1", "val_accuracy", "val_balanced_accuracy")
        }
        Path(f"results/{name}/metrics.json").write_text(json.dumps(scores))
    Path("results/first/size.json").write_text('{"parameters": 999}')
    assert compare()[1]["winner"] == "first"


def test_a_row_says_what_was_compared(compared: tuple[Path, list[str], dict]) -> None:
    """And a column that is blank everywhere is not shown."""
    table = pd.read_csv(compared[0] / "comparison.csv", keep_default_na=False)
    assert "backbone" in table and "backbone" not in to_text(table)
    row = table.set_index("architecture").loc["third"]
    assert (row["rank"], row.question, row.kind) == (2, "all classes", "cnn")
    assert (row.filters, row.kernel, row.dropout, row.batch_size) == (4, 3, 0.3, 32)
    assert (row.parameters, row.epochs, row.seconds) == (200, 2, 1.5)
    assert (row.train_accuracy, row.val_accuracy, row.test_accuracy, row.overfitting) == (
        0.9,
        0.65,
        0.35,
        "strong",
    )
    for name in (
        "val_accuracy",
        "val_macro_f1",
        "test_accuracy",
        "test_macro_f1",
        "test_without_copies_accuracy",
    ):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    scores = json.loads(Path("results/third/metrics.json").read_text())
    for name in (
        "test_pr_auc",
        "test_brier_before",
        "test_calibration_error",
        "test_without_copies_images",
        "best_epoch",
    ):
        assert row[name] == pytest.approx(scores[name], rel=1e-6)


def test_times_are_blank_where_another_machine_trained_the_model() -> None:
    """Then the predictions are not those that the times were taken with."""
    write_timing(
        {"train_seconds": 2.5, "epoch_seconds": [2.5], "predict_seconds_per_image": 0.0125},
        Path("results/first"),
    )
    with Path("results/second/predictions.csv").open("a") as file:
        file.write("\n")
    compare()
    table = read_table(Path("comparison.csv")).set_index("architecture")
    assert table.predict_seconds_per_image.to_dict() == {
        "first": "0.0125",
        "second": "",
        "third": "",
    }
    assert table.seconds.to_dict() == {"first": "2.5", "second": "", "third": "1.5"}
    assert (
        table.epochs.to_dict() == dict.fromkeys(ARCHITECTURES, "2")
        and table.parameters["second"] == "300"
    )
    assert "seconds" not in Path("comparison.json").read_text()  # it would differ from run to run


def test_where_every_test_image_has_a_copy_the_cells_are_blank() -> None:
    splits = read_table(Path("splits.csv"))
    copies = splits[splits.split == "test"].assign(split="withheld", path="Training/" + splits.path)
    write_table(pd.concat([splits, copies]), Path("splits.csv"))
    for name, right in ARCHITECTURES.items():
        write_results(name, predictions(right, test_right=0.5, seed=0))
    comparison = compare()[1]
    row = read_table(Path("comparison.csv")).iloc[0]
    assert (
        row.test_without_copies_images,
        row.test_without_copies_accuracy,
        row.test_without_copies_macro_f1_low,
    ) == ("0", "", "")
    assert (
        comparison["test_without_copies_images"] == 0
        and "test_without_copies_accuracy" not in comparison
    )


def test_the_winner_against_the_others(compared: tuple[Path, list[str], dict]) -> None:
    """`second` is right on 8 of 40 test images, `third` on these and 6 more, `first` on 12 more."""
    table = read_table(compared[0] / "paired.csv")
    columns = ["winner", "other", "images", "groups", "winner_alone", "other_alone"]
    assert table[columns].values.tolist() == [
        ["second", "third", "40", "40", "0", "6"],
        ["second", "first", "40", "40", "0", "12"],
    ]
    assert table.p.astype(float).tolist() == pytest.approx([2 / 2**6, 2 / 2**12])
    assert table.p_holm.astype(float).tolist() == pytest.approx([2 / 2**6, 2 * 2 / 2**12])
    assert (table.macro_f1_difference_high.astype(float) < 0).all()


def test_the_suspects_are_those_of_the_main_question() -> None:
    Path("params.yaml").write_text(
        "architectures: {first: {like: cnn_a}, second: {like: cnn_b}, "
        "third: {like: cnn_a, positive: b}}\n"
    )
    write_results(
        "third",
        predictions(0.8, 0.2, seed=0).replace("a", "not_b").rename(columns={"p_a": "p_not_b"}),
    )
    compare()
    found = read_table(Path("suspects.csv"))
    assert len(found) and set(found.split) <= {"validation", "test"} and set(found.models) == {"2"}
    tables = [
        read_table(Path(f"results/{name}/predictions.csv")).set_index("path")
        for name in ("first", "second")
    ]
    wrong = sum((table.predicted != table.label).astype(int) for table in tables)
    assert found.disagree.astype(int).tolist() == wrong[found.path].tolist()
    mean = sum(table.p_a.where(table.label == "a", table.p_b) for table in tables) / 2
    assert found.p_label.tolist() == pytest.approx(mean[found.path].tolist(), rel=1e-6)
    assert found.p_label.is_monotonic_increasing


def test_predictions_of_other_images_are_refused() -> None:
    table = read_table(Path("results/third/predictions.csv"))
    write_table(table[1:], Path("results/third/predictions.csv"))
    with pytest.raises(
        UserError,
        match="results/third/predictions.csv has 119 images, expected the 120 images of splits.csv",
    ):
        compare()


def test_every_column_is_described(compared: tuple[Path, list[str], dict]) -> None:
    for name, columns in {
        "comparison": COMPARISON_COLUMNS,
        "paired": PAIRED_TESTS_COLUMNS,
        "suspects": SUSPECTS_COLUMNS,
    }.items():
        assert read_table(compared[0] / f"{name}.csv").columns.tolist() == list(columns)


def test_again_gives_the_same_bytes(compared: tuple[Path, list[str], dict]) -> None:
    files = {Path(file.name): file.read_bytes() for file in compared[0].glob("*.csv")}
    for name in ARCHITECTURES:  # rows in another order are the same predictions
        file = Path("results") / name / "predictions.csv"
        write_table(read_table(file)[::-1], file)
        write_timing(TIMES, file.parent)
    compare()
    assert {file: file.read_bytes() for file in files} == files and len(files) == 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cnn_b", ("cnn", "", "16 32 64 128", 3, 0.5)),
        ("mnist_mlp", ("cnn", "", "", "", 0.0)),
        ("resnet50", ("transfer", "ResNet50", "", "", "0.5 0.3")),
        ("inception_v3", ("transfer", "InceptionV3", "", "", "")),
        ("random_forest", ("classical", "", "", "", "")),
        ("svm_features", ("classical", "MobileNetV2", "", "", "")),
    ],
)
def test_the_columns_of_every_structure(name: str, expected: tuple) -> None:
    columns = {"kind": TABLE[name].kind, **TABLE[name].describe()}
    names = ["kind", "backbone", "filters", "kernel", "dropout"]
    assert tuple(columns.get(column, "") for column in names) == expected
    assert set(columns) <= set(names)


def test_every_row_of_the_table_can_be_compared() -> None:
    assert {structure.kind for structure in TABLE.values()} == {"cnn", "transfer", "classical"}


def test_what_does_not_apply_is_blank(caplog: pytest.LogCaptureFixture) -> None:
    Path("params.yaml").write_text(
        "architectures: {first: {like: cnn_a}, second: {like: resnet50, batch_size: 8}, "
        "third: {like: random_forest}}\n"
    )
    with caplog.at_level("INFO"):
        compare()
    columns = ["kind", "backbone", "filters", "kernel", "dropout", "batch_size"]
    assert read_table(Path("comparison.csv")).set_index("architecture")[columns].T.to_dict(
        "list"
    ) == {
        "second": ["transfer", "ResNet50", "", "", "0.5 0.3", "8"],
        "third": ["classical", "", "", "", "", ""],
        "first": ["cnn", "", "32 64 128", "3", "0.3", "32"],
    }
    again = pd.read_csv("comparison.csv", keep_default_na=False)
    write_table(again, Path("again.csv"))
    assert Path("again.csv").read_bytes() == Path("comparison.csv").read_bytes()
    header, *lines = caplog.messages[0].splitlines()[1:-1]
    assert (
        header.split()[:3] == ["architecture", "kind", "backbone"]
        and len({len(line) for line in (header, *lines)}) == 1
    )
    assert (
        lines[1].split()[:3] == ["third", "classical", "0.900"] and "nan" not in caplog.text.lower()
    )


def test_the_best_cnn_against_the_best_transfer_model() -> None:
    """The forest is better than both, and takes no part in it."""
    SIZES["forest"] = 1
    write_results("forest", predictions(0.95, test_right=0.5, seed=0))
    Path("params.yaml").write_text(
        "architectures: {first: {like: cnn_a}, second: {like: cnn_b}, third: {like: resnet50}, "
        "forest: {like: random_forest}}\n"
    )
    order, comparison = compare()
    assert order == ["forest", "second", "third", "first"] and comparison["winner"] == "forest"
    kinds = comparison["best_by_kind"]
    assert (kinds["winner"], kinds["cnn"]["architecture"], kinds["transfer"]["architecture"]) == (
        "second",
        "second",
        "third",
    )
    losses = {
        name: json.loads(Path(f"results/{name}/metrics.json").read_text())["val_log_loss"]
        for name in ("second", "third")
    }
    assert (
        kinds["transfer"]["val_log_loss"] == losses["third"]
        and kinds["cnn"]["val_log_loss"] == losses["second"]
    )
    shown = ("val_accuracy", "test_accuracy", "parameters", "overfitting")
    assert [kinds["transfer"][name] for name in shown] == [0.65, pytest.approx(0.35), 200, "strong"]
    assert [kinds["cnn"][name] for name in shown] == [0.8, pytest.approx(0.2), 300, "none"]


def test_one_kind_alone_is_not_compared(compared: tuple[Path, list[str], dict]) -> None:
    assert "best_by_kind" not in compared[2]
    Path("params.yaml").write_text(
        "architectures: {first: {like: cnn_a}, second: {like: resnet50, positive: b}}\n"
    )
    write_results(
        "second",
        predictions(0.8, 0.2, seed=0).replace("a", "not_b").rename(columns={"p_a": "p_not_b"}),
    )
    comparison = compare()[1]
    assert "best_by_kind" not in comparison and comparison["winners"] == {
        "all classes": "first",
        "b or not": "second",
    }


QUESTIONS = """
compare: {question: MAIN}
architectures:
  first: {like: cnn_a}
  sure: {like: cnn_a, positive: c}
  third: {like: cnn_b}
  unsure: {like: cnn_b, positive: c}
  pairs: {like: cnn_a, labels: {ab: [a, b], rest: [c, d]}}
  fine: {like: cnn_a, labels: {a: [a], b: [b], others: [d, c]}}
"""
FOLDERS = "abcd"
CLASSES = {
    "pairs": ["ab", "rest"],
    "fine": ["a", "b", "others"],
    "sure": ["not_c", "c"],
    "unsure": ["not_c", "c"],
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make six models of three questions, and their predictions of one image of each folder.

    The parts are alike. `first` is right for a and b. It predicts the image of c as d, with 0.3 for
    c and 0.4 for d: right if both are one class. `third` is only wrong for b: it predicts a.
    """
    answers = {
        "first": [
            [0.7, 0.1, 0.1, 0.1],
            [0.2, 0.5, 0.2, 0.1],
            [0.2, 0.1, 0.3, 0.4],
            [0.4, 0.1, 0.2, 0.3],
        ],
        "third": [
            [0.6, 0.2, 0.1, 0.1],
            [0.5, 0.3, 0.1, 0.1],
            [0.1, 0.1, 0.7, 0.1],
            [0.1, 0.1, 0.1, 0.7],
        ],
        "sure": [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.7, 0.3]],
        "unsure": [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]],
        "pairs": [[0.6, 0.4], [0.7, 0.3], [0.6, 0.4], [0.4, 0.6]],
        "fine": [[0.5, 0.4, 0.1], [0.1, 0.4, 0.5], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]],
    }
    truth = {
        "pairs": ["ab", "ab", "rest", "rest"], "fine": ["a", "b", "others", "others"],
        "sure": ["not_c", "not_c", "c", "not_c"], "unsure": ["not_c", "not_c", "c", "not_c"],
    }  # fmt: skip
    splits = [
        (f"{part}/{path}", path, part)
        for part in ("training", "validation", "test")
        for path in "dacb"
    ]
    table = pd.DataFrame(splits, columns=["path", "label", "split"])
    root = tmp_path_factory.mktemp("asked")
    write_table(table.assign(group=table.path), root / "splits.csv")
    for name, probabilities in answers.items():
        classes = CLASSES.get(name, list(FOLDERS))
        rows = pd.DataFrame(probabilities, columns=[f"p_{label}" for label in classes])
        rows.insert(0, "predicted", [classes[index] for index in np.argmax(probabilities, axis=1)])
        rows.insert(0, "label", truth.get(name, list(FOLDERS)))
        parts = [
            rows.assign(path=[f"{part}/{path}" for path in FOLDERS], split=part)
            for part in ("training", "validation", "test")
        ]
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(root)
            write_results(name, pd.concat(parts))
    (root / "params.yaml").write_text(QUESTIONS.replace("MAIN", "null"))
    return root


@pytest.fixture
def questions(asked: Path) -> None:
    """Copy the folder into the current folder."""
    shutil.copytree(asked, Path(), dirs_exist_ok=True)


def test_each_question_has_its_ranking_and_its_winner(
    questions: None, caplog: pytest.LogCaptureFixture
) -> None:
    """And those that several models can answer are told."""
    with caplog.at_level("INFO"):
        comparison = compare()[1]
    told = [
        message for message in caplog.messages if message.startswith("all models that can answer")
    ]
    assert [message.splitlines()[0].partition(": ")[2] for message in told] == [
        "c or not",
        "ab, rest",
        "a, b, others",
    ]
    assert told[0].splitlines()[2].split()[:2] == ["sure", "c"]
    table = pd.read_csv("comparison.csv")
    assert list(zip(table.question, table["rank"], table.architecture, strict=True)) == [
        ("all classes", 1, "third"), ("all classes", 2, "first"),
        ("c or not", 1, "sure"), ("c or not", 2, "unsure"),
        ("ab, rest", 1, "pairs"), ("a, b, others", 1, "fine"),
    ]  # fmt: skip
    assert (comparison["winner"], comparison["question"]) == ("third", "all classes")
    assert comparison["architectures"] == ["third", "first"] and comparison["val_accuracy"] == 0.75
    assert comparison["winners"] == {
        "all classes": "third",
        "c or not": "sure",
        "ab, rest": "pairs",
        "a, b, others": "fine",
    }


def test_params_say_which_question_is_the_main_one(questions: None) -> None:
    Path("params.yaml").write_text(QUESTIONS.replace("MAIN", "c or not"))
    order, comparison = compare()
    assert order == ["sure", "unsure", "third", "first", "pairs", "fine"]
    assert (comparison["winner"], comparison["question"], comparison["val_accuracy"]) == (
        "sure",
        "c or not",
        1,
    )
    assert comparison["architectures"] == ["sure", "unsure"]


def test_without_the_question_of_all_classes_the_first_one_counts(questions: None) -> None:
    text = (
        "architectures: {pairs: {like: cnn_a, labels: {ab: [a, b], rest: [c, d]}}, "
        "sure: {like: cnn_a, positive: c}}\n"
    )
    Path("params.yaml").write_text(text)
    assert compare()[1]["question"] == "ab, rest"


def test_models_are_compared_on_the_questions_they_share(questions: None) -> None:
    """Counted by hand from the probabilities above.

    c or not: `first` gives c 0.1, 0.2, 0.3 and 0.2, so it predicts no c, and 0.3 ranks first.
    `third` is right, and so is `sure`. The groups cannot tell c from d.
    ab or the rest: `first` gives ab 0.8, 0.7, 0.3, 0.5 (a tie goes to the first class), `third`
    0.8, 0.8, 0.2, 0.2, and `fine` 0.9, 0.5 (a tie), 0.2, 0.6. `pairs` predicts c as ab.
    a, b, others: `first` is right. For the image of b, `fine` predicts others and `third` a.
    """
    compare()
    shared = pd.read_csv("shared.csv")
    assert shared.columns.tolist() == list(SHARED_QUESTIONS_COLUMNS)
    assert shared[["question", "architecture", "asked"]].values.tolist() == [
        ["c or not", "sure", "c or not"], ["c or not", "third", "all classes"],
        ["c or not", "unsure", "c or not"],
        ["c or not", "first", "all classes"],
        ["ab, rest", "third", "all classes"], ["ab, rest", "fine", "a, b, others"],
        ["ab, rest", "first", "all classes"],
        ["ab, rest", "pairs", "ab, rest"],
        ["a, b, others", "first", "all classes"], ["a, b, others", "fine", "a, b, others"],
        ["a, b, others", "third", "all classes"],
    ]  # fmt: skip
    row = shared.set_index(["question", "architecture"])
    for prefix in ("val", "test"):
        scores = row[
            [
                f"{prefix}_accuracy",
                f"{prefix}_balanced_accuracy",
                f"{prefix}_macro_f1",
                f"{prefix}_roc_auc",
            ]
        ]
        assert scores.loc[("c or not", "first")].tolist() == pytest.approx(
            [0.75, 0.5, (6 / 7) / 2, 1]
        )
        assert scores.loc[("c or not", "third")].tolist() == [1, 1, 1, 1]
        assert scores.loc[("a, b, others", "fine")].tolist()[:3] == pytest.approx(
            [0.75, 2 / 3, (1 + 0 + 4 / 5) / 3]
        )
        assert scores.loc[("a, b, others", "third")].tolist()[:3] == pytest.approx(
            [0.75, 2 / 3, (2 / 3 + 0 + 1) / 3]
        )
        assert scores.loc[("ab, rest", "pairs")].tolist() == pytest.approx(
            [0.75, 0.75, (4 / 5 + 2 / 3) / 2, 3.5 / 4]
        )
    low, high = shared.test_accuracy_low[3], shared.test_accuracy_high[3]
    assert (low, high) == pytest.approx(beta.ppf([0.025, 0.975], 3.5, 1.5), abs=0.01)


def test_models_of_one_question_share_no_other(compared: tuple[Path, list[str], dict]) -> None:
    assert (compared[0] / "shared.csv").read_text() == ",".join(SHARED_QUESTIONS_COLUMNS) + "\n"
    Path("params.yaml").write_text(
        "architectures: {first: {like: cnn_a, positive: b}, second: {like: cnn_a, positive: b}}\n"
    )
    compare()
    assert Path("shared.csv").read_text() == ",".join(SHARED_QUESTIONS_COLUMNS) + "\n"


def test_results_that_are_missing_are_an_error() -> None:
    Path("results/first/metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match="results/first/metrics.json"):
        compare()
