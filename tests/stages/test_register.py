"""The winner is registered once, the champion changes only through the gate, predictions stay."""

import json
import shutil
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from flows import promote
from tasks.errors import UserError
from tasks.registry import load, promotions, versions
from tasks.tables import read_table, write_table
from tasks.tracking import runs
from tasks.tracking.hashes import file_sha256, folder_sha256
from tests.support import toy_registry
from tests.support.pipeline import CLASSES, enter, run_stage

pytestmark = pytest.mark.slow

PROMOTIONS = Path("data/promotions.jsonl")
RECEIPT = Path("data/registration.json")


@pytest.fixture
def client(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Return the registry of `workspace`: the winner of the pipeline is version 1 and champion."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model adds its code
    runs.open_store()
    return MlflowClient()


@pytest.fixture
def registered(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Return the registry of `pipeline` itself, to be read only."""
    enter(pipeline, monkeypatch)
    return MlflowClient()


def winner() -> str:
    return json.loads(Path("data/comparison.json").read_text())["winner"]


def challenge(predicted: str, name: str = "other", **scores: float) -> dict:
    """Register a copy of the winner that predicts the column `predicted`; return the receipt."""
    shutil.copytree(Path("data/models") / winner(), Path("data/models") / name)
    shutil.copytree(Path("data/results") / winner(), Path("data/results") / name)
    (Path("data/models") / name / "summary.txt").write_text(name)
    table = read_table(Path("data/results") / name / "predictions.csv")
    write_table(
        table.assign(predicted=table[predicted]), Path("data/results") / name / "predictions.csv"
    )
    metrics = Path("data/results") / name / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | scores))
    Path("data/comparison.json").write_text(json.dumps({"winner": name}))
    return register()


def register() -> dict:
    run_stage("register")
    return json.loads(RECEIPT.read_text())


def toy_champion(first: str) -> int:
    """Make a champion with the predictions of `first`, without a look, and return its version."""
    table = read_table(Path("data/results") / first / "predictions.csv").query("split == 'test'")
    hashes = [file_sha256(Path("data/clean") / path) for path in table.path]
    toy = toy_registry.register(
        Path("toy").resolve(),
        dict(zip(hashes, table.predicted, strict=True)),
        CLASSES,
        [],
        name="tiny",
    )
    MlflowClient().set_registered_model_alias("tiny", "champion", toy.version)
    return int(toy.version)


def lines() -> list[dict]:
    return promotions.read(PROMOTIONS)


def numbers(client: MlflowClient) -> list[int]:
    return sorted(int(version.version) for version in client.search_model_versions("name = 'tiny'"))


def aliases(client: MlflowClient) -> dict[str, int]:
    return {
        alias: int(version)
        for alias, version in client.get_registered_model("tiny").aliases.items()
    }


def packed() -> str:
    with versions.fetch(MlflowClient().get_model_version("tiny", "1")) as folder:
        return versions.find_artifact(folder, "thresholds").read_text()


def test_the_first_version_is_the_champion_and_says_what_it_is(registered: MlflowClient) -> None:
    receipt, version = json.loads(RECEIPT.read_text()), registered.get_model_version("tiny", "1")
    assert numbers(registered) == [1]
    assert aliases(registered) == {"champion": 1, "challenger": 1}
    assert (receipt["version"], receipt["champion"], receipt["champion_before"]) == (1, 1, None)
    assert receipt["verdict"] == "promoted" and receipt["reason"].startswith(
        "the first champion; macro F1"
    )
    assert receipt["architecture"] == winner() and receipt["looks"] == 1
    assert receipt["model_sha256"] == folder_sha256(Path("data/models") / winner())
    scores = json.loads((Path("data/results") / winner() / "metrics.json").read_text())
    assert (
        version.tags["architecture"] == winner() and json.loads(version.tags["classes"]) == CLASSES
    )
    told = {name: value for name, value in scores.items() if name.startswith(("val_", "test_"))}
    assert {
        name: float(value) for name, value in versions.read_tags(version).items() if name in told
    } == told
    assert (
        registered.get_run(version.run_id).data.params["architecture"] == winner()
    )  # of its training


def test_a_look_is_told_in_the_receipt_the_registry_and_the_history(
    registered: MlflowClient,
) -> None:
    receipt, line = json.loads(RECEIPT.read_text()), lines()[-1]
    assert (
        len(lines()) == 1
        and line["event"] == "look"
        and line["who"]
        and line["when"].startswith("20")
    )
    tags = registered.get_model_version("tiny", "1").tags
    assert (
        json.loads(tags[f"line {line['when']}"]) == line
        and tags["gate"] == f"promoted: {line['reason']}"
    )
    assert receipt["numbers"] == line["numbers"] and receipt["checks"] == line["checks"]
    scores = json.loads((Path("data/results") / winner() / "metrics.json").read_text())
    assert line["numbers"]["macro_f1"] == scores["test_macro_f1"]
    assert line["hashes"]["params"] == file_sha256(Path("params.yaml"))
    assert (
        line["hashes"]["splits"] == file_sha256(Path("data/splits.csv"))
        and len(line["hashes"]["test"]) == 64
    )


def test_a_version_keeps_the_images_it_was_given(registered: MlflowClient) -> None:
    splits = read_table(Path("data/splits.csv"))
    with versions.fetch(registered.get_model_version("tiny", "1")) as folder:
        seen = read_table(versions.find_artifact(folder, "seen"))
    assert set(seen.sha256) == set(
        splits.sha256[splits.split.isin(["training", "validation", "withheld"])]
    )
    assert (
        set(seen.sha256[seen.split == "withheld"])
        == set(splits.sha256[splits.split == "withheld"])
        != set()
    )
    assert seen.hash.str.len().isin([0, 60]).all() and (seen.hash.str.len() == 60).any()


def test_links_into_the_cache_of_dvc_are_registered_as_files(
    client: MlflowClient, tmp_path: Path
) -> None:
    """`dvc config cache.type symlink` leaves such links."""
    shutil.copytree(Path("data/models") / winner(), Path("data/models/linked"))
    shutil.copytree(Path("data/results") / winner(), Path("data/results/linked"))
    Path("data/models/linked/summary.txt").write_text("another model")
    for path in [*Path("data/models/linked").iterdir(), *Path("data/results/linked").iterdir()]:
        path.symlink_to(path.replace(tmp_path / f"{path.parent.parent.name} {path.name}"))
    Path("data/comparison.json").write_text(json.dumps({"winner": "linked"}))
    receipt = register()
    with versions.fetch(client.get_model_version(receipt["model"], receipt["version"])) as folder:
        assert (folder / "artifacts/thresholds.json").read_bytes() == Path(
            "data/results/linked/thresholds.json"
        ).read_bytes()
        assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_a_second_time_changes_nothing_but_the_thresholds(client: MlflowClient) -> None:
    """Thresholds are not part of the model: new ones change neither the version nor its hash."""
    history, file = PROMOTIONS.read_bytes(), Path("data/results") / winner() / "thresholds.json"
    evaluated = file.read_text()
    assert packed() == evaluated
    receipts = []
    for text in (
        json.dumps(json.loads(evaluated) | {"confidence": 0.123}),
        evaluated,
    ):  # the store is all tests': set it back
        file.write_text(text)
        receipts.append(register())
        assert packed() == text
        assert numbers(client) == [1] and aliases(client) == {"champion": 1, "challenger": 1}
    assert receipts[0]["verdict"] == "stands"
    assert receipts[0]["reason"].startswith("it is the champion already, since the look of")
    assert receipts[0] == receipts[1] and PROMOTIONS.read_bytes() == history


def test_a_better_one_is_promoted_and_a_rollback_outlasts_the_next_run_but_not_a_new_model(
    client: MlflowClient,
) -> None:
    """The first champion is a Keras model; the challengers predict the labels."""
    first = winner()
    table = read_table(Path("data/results") / first / "predictions.csv").query("split == 'test'")
    receipt = challenge("label")
    assert aliases(client) == {"champion": 2, "challenger": 2} and numbers(client) == [1, 2]
    assert (receipt["verdict"], receipt["champion_before"], receipt["looks"]) == ("promoted", 1, 2)
    assert receipt["numbers"]["gains"] == (table.label != table.predicted).sum() > 5
    assert receipt["numbers"]["challenger_macro_f1"] == 1
    promote.roll_back(client, "tiny", "not on bright scans")
    receipt = register()
    assert (
        aliases(client)["champion"] == 1
        and receipt["champion"] == 1
        and receipt["verdict"] == "stands"
    )
    assert receipt["reason"].startswith("version 1 stays champion: the rollback of ")
    assert "(not on bright scans) replaced this model" in receipt["reason"]
    assert [line["event"] for line in lines()] == ["look", "look", "rollback"]
    assert toy_champion(first) == 3  # it answers sooner than the Keras model
    assert challenge("label", "newer")["champion"] == 4


def test_an_equal_one_is_refused_once_and_an_altered_champion_stops_the_stage(
    client: MlflowClient,
) -> None:
    """Its scores on validation and test claim to be higher."""
    toy = toy_champion(winner())
    receipt = challenge("predicted", val_macro_f1=1.0, test_macro_f1=1.0)
    assert aliases(client) == {"champion": toy, "challenger": 3}
    assert receipt["verdict"] == "refused" and "difference +0.000 to +0.000" in receipt["reason"]
    again = register()
    assert (
        again["verdict"] == "refused"
        and "and is not repeated: refused: macro F1" in again["reason"]
    )
    assert len(lines()) == 2 and again["numbers"] == receipt["numbers"]
    (toy_registry.files(client.get_model_version("tiny", str(toy))) / "answers.json").write_text(
        "{}"
    )
    with pytest.raises(UserError, match="the files of version 2 of tiny have changed"):
        register()


def test_an_empty_registry_gets_the_champion_that_the_history_names_and_no_other(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = PROMOTIONS.read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/fresh.db")
    receipt = register()
    fresh = MlflowClient(f"sqlite:///{tmp_path}/fresh.db")
    assert numbers(fresh) == [1] and aliases(fresh) == {"champion": 1, "challenger": 1}
    assert receipt["reason"].startswith("it is the champion already, since the look of")
    assert PROMOTIONS.read_bytes() == history  # nothing was looked at again
    fresh.delete_registered_model_alias("tiny", "champion")
    change = {
        "when": "2999-01-01T00:00:00.000000Z",
        "event": "promotion",
        "champion": 7,
        "champion_sha256": "f" * 64,
    }
    promotions.append(
        PROMOTIONS, lines()[0] | {"champion_before_sha256": lines()[0]["champion_sha256"]} | change
    )
    receipt = register()
    assert receipt["champion"] is None and receipt["verdict"] == "undecided"
    assert "names version 7 as champion (model ffffffff" in receipt["reason"]


def test_class_names_are_kept_with_the_version_and_unknown_classes_are_refused(
    client: MlflowClient,
) -> None:
    params = Path("params.yaml")
    text = params.read_text()
    params.write_text(
        text.replace("  model: tiny\n", "  model: tiny\n  class_names: {NA: Aucune}\n")
    )
    register()
    params.write_text(
        text.replace("  model: tiny\n", "  model: tiny\n  class_names: {Na: Aucune}\n")
    )
    with pytest.raises(
        UserError, match=r"did you mean NA\? expected classes of the model, which are"
    ):
        register()
    params.write_text(text)
    predictor = load.load_predictor("1")
    assert (predictor.name_class("NA"), predictor.name_class("01")) == ("Aucune", "01")
    assert predictor.predict([b""])[0].error
    assert numbers(client) == [1]
    register()  # without names again
    with load.open_model("1") as files:
        assert files.class_names == {}


def test_what_is_registered_answers_like_the_training_in_the_order_of_its_own_classes(
    client: MlflowClient,
) -> None:
    """Bytes of image files in; the class and the probabilities of predictions.csv out.

    With renamed classes the model is another version, and has its classes in their own order.
    """
    predictions = read_table(Path("data/results") / winner() / "predictions.csv")
    images = pd.DataFrame(
        {"image": [(Path("data/clean") / path).read_bytes() for path in predictions.path]}
    )
    answers = mlflow.pyfunc.load_model("models:/tiny@champion").predict(images)
    columns = [f"p_{label}" for label in CLASSES]
    assert list(answers.columns) == [
        "predicted",
        "confidence",
        "abstained",
        "unfamiliar",
        "distance",
        *columns,
        "error",
    ]
    assert answers.predicted.tolist() == predictions.predicted.tolist()
    assert np.abs(answers[columns].to_numpy(float) - predictions[columns].to_numpy()).max() < 1e-5
    assert np.abs(answers.confidence - predictions[columns].max(axis=1)).max() < 1e-5
    renamed = ["zebra", "ant", "NA", "01"]
    (Path("data/models") / winner() / "classes.json").write_text(json.dumps(renamed))
    register()
    assert numbers(client) == [1, 2]
    after = mlflow.pyfunc.load_model("models:/tiny/2").predict(images[:1])
    assert [column for column in after if column.startswith("p_")] == [
        f"p_{label}" for label in renamed
    ]
    assert [after[f"p_{label}"][0] for label in renamed] == pytest.approx(
        [answers[column][0] for column in columns]
    )
    assert renamed.index(after.predicted[0]) == CLASSES.index(answers.predicted[0])
