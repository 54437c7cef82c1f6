"""The registry holds the winner once, the champion changes only for a better one, and what is registered predicts as trained."""

import json
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tasks import tracking
from tasks.tables import read_table
from tests.conftest import CLASSES, run_stage


@pytest.fixture
def client(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The registry of `workspace`, in which the winner of the pipeline is version 1 and champion."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model adds its code
    tracking.open_store()
    return MlflowClient()


def winner() -> str:
    return json.loads(Path("data/comparison.json").read_text())["winner"]


def register_other(score: float) -> dict:
    """Let the other architecture win with this validation score, register it, and return the receipt."""
    other = {"tiny": "plain", "plain": "tiny"}[winner()]
    Path("data/comparison.json").write_text(json.dumps({"winner": other}))
    metrics = Path("data/results") / other / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"val_macro_f1": score}))
    return register()


def register() -> dict:
    run_stage("register")
    return json.loads(Path("data/registration.json").read_text())


def versions(client: MlflowClient) -> list[int]:
    return sorted(int(version.version) for version in client.search_model_versions("name = 'tiny'"))


def aliases(client: MlflowClient) -> dict[str, int]:
    return {alias: int(version) for alias, version in client.get_registered_model("tiny").aliases.items()}


def test_the_first_version_is_the_champion(client: MlflowClient) -> None:
    receipt = json.loads(Path("data/registration.json").read_text())
    assert versions(client) == [1]
    assert aliases(client) == {"champion": 1, "challenger": 1}
    assert (int(receipt["version"]), int(receipt["champion"]), receipt["champion_before"]) == (1, 1, None)
    assert receipt["reason"] == "the first version" and receipt["architecture"] == winner()
    assert receipt["model_sha256"] == tracking.file_sha256(Path("data/models") / winner() / "model.keras")


def test_a_version_says_what_it_is(client: MlflowClient) -> None:
    tags = client.get_model_version("tiny", "1").tags
    scores = json.loads((Path("data/results") / winner() / "metrics.json").read_text())
    assert tags["architecture"] == winner() and json.loads(tags["classes"]) == CLASSES
    assert {name: float(tags[name]) for name in scores if not name.startswith("train_")} == {
        name: value for name, value in scores.items() if not name.startswith("train_")
    }


def test_the_version_belongs_to_the_run_of_its_training(client: MlflowClient) -> None:
    run = client.get_run(client.get_model_version("tiny", "1").run_id)
    assert run.data.params["architecture"] == winner()


def test_a_second_time_changes_nothing(client: MlflowClient) -> None:
    receipt = register()
    assert versions(client) == [1] and aliases(client) == {"champion": 1, "challenger": 1}
    assert receipt["reason"] == "it is the champion already"
    first = Path("data/registration.json").read_bytes()
    register()
    assert Path("data/registration.json").read_bytes() == first


@pytest.mark.parametrize(("step", "champion"), [(-0.01, 1), (0.0, 1), (0.01, 2)])
def test_the_champion_moves_only_for_a_higher_score(client: MlflowClient, step: float, champion: int) -> None:
    before = float(client.get_model_version("tiny", "1").tags["val_macro_f1"])
    receipt = register_other(before + step)
    assert versions(client) == [1, 2]
    assert aliases(client) == {"champion": champion, "challenger": 2}
    assert (int(receipt["version"]), int(receipt["champion"]), int(receipt["champion_before"])) == (2, champion, 1)
    assert receipt["reason"] == f"val_macro_f1 {before + step:.4f} of version 2 against {before:.4f} of version 1"


def test_a_higher_test_score_does_not_make_a_champion(client: MlflowClient) -> None:
    other = {"tiny": "plain", "plain": "tiny"}[winner()]
    metrics = Path("data/results") / other / "metrics.json"
    best = {name: 1.0 for name in json.loads(metrics.read_text()) if name.startswith("test_")}
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | best))
    register_other(0.0)
    assert aliases(client)["champion"] == 1


def test_a_fresh_registry_is_filled(client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receipt is there already, the registry is asked."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/fresh.db")
    receipt = register()
    fresh = MlflowClient(f"sqlite:///{tmp_path}/fresh.db")
    assert versions(fresh) == [1] and aliases(fresh) == {"champion": 1, "challenger": 1}
    assert receipt["reason"] == "the first version"


def test_the_registered_model_answers_like_the_training(client: MlflowClient) -> None:
    """Bytes of image files in; the class and the probabilities of predictions.csv out."""
    predictions = read_table(Path("data/results") / winner() / "predictions.csv")
    model = mlflow.pyfunc.load_model("models:/tiny@champion")
    images = pd.DataFrame({"image": [(Path("data/clean") / path).read_bytes() for path in predictions.path]})
    answers = model.predict(images)
    columns = [f"p_{label}" for label in CLASSES]
    assert list(answers.columns) == ["predicted", "confidence", *columns]
    assert answers.predicted.tolist() == predictions.predicted.tolist()
    assert np.abs(answers[columns].to_numpy() - predictions[columns].to_numpy()).max() < 1e-5
    assert np.abs(answers.confidence - predictions[columns].max(axis=1)).max() < 1e-5


def test_the_order_of_the_classes_is_read_beside_the_model(client: MlflowClient) -> None:
    """The same model file for renamed classes is another version, and names them in its own order."""
    renamed = ["zebra", "ant", "NA", "01"]
    (Path("data/models") / winner() / "classes.json").write_text(json.dumps(renamed))
    register()
    assert versions(client) == [1, 2]
    path = read_table(Path("data/results") / winner() / "predictions.csv").path[0]
    image = pd.DataFrame({"image": [(Path("data/clean") / path).read_bytes()]})
    before, after = (mlflow.pyfunc.load_model(f"models:/tiny/{version}").predict(image) for version in (1, 2))
    assert list(after.columns) == ["predicted", "confidence", *(f"p_{label}" for label in renamed)]
    assert after.iloc[0, 1:].tolist() == pytest.approx(before.iloc[0, 1:].tolist())
    assert renamed.index(after.predicted[0]) == CLASSES.index(before.predicted[0])


def test_the_registered_model_refuses_what_is_no_image(client: MlflowClient) -> None:
    model = mlflow.pyfunc.load_model("models:/tiny@champion")
    with pytest.raises(ValueError, match="not_an_image"):
        model.predict(pd.DataFrame({"image": [b"text"]}))
