"""MLflow loads and serves the registered model; a bad image does not affect the others."""

import base64
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server

from tasks.tables import read_table
from tests.support.pipeline import enter

pytestmark = pytest.mark.slow


@pytest.fixture
def images(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return two images of the pipeline, the current folder, and a text between them."""
    enter(pipeline, monkeypatch)
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model adds its code
    paths = read_table(Path("data/splits.csv")).path[:2]
    first, second = [(Path("data/clean") / path).read_bytes() for path in paths]
    return [first, b"a text", second]


def test_a_bad_image_does_not_affect_the_others(images: list[bytes]) -> None:
    model = mlflow.pyfunc.load_model("models:/tiny@champion")
    answers = model.predict(pd.DataFrame({"image": images}))
    good, bad = answers.drop(1), answers.loc[1]
    assert bad.error == "not_an_image: a text file" and bad.drop("error").isna().all()
    assert good.error.isna().all() and good.predicted.notna().all()
    alone = model.predict(pd.DataFrame({"image": images[2:]})).loc[0]
    assert good.loc[2].confidence == pytest.approx(alone.confidence, abs=1e-5)
    assert model.metadata.signature.outputs.input_names() == list(answers.columns)


def test_mlflow_serves_it(images: list[bytes]) -> None:
    """`mlflow models serve` runs this app."""
    model = mlflow.pyfunc.load_model("models:/tiny@champion")
    packed = [{"image": base64.b64encode(image).decode()} for image in images]
    with TestClient(scoring_server.init(model)) as client:
        for body in ({"dataframe_records": packed}, {"inputs": packed}):
            received = (
                client.post("/invocations", json=body).raise_for_status().json()["predictions"]
            )
            assert received == model.predict(pd.DataFrame({"image": images})).to_dict("records")
