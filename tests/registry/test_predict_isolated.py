"""A registered model answers in a process of its own, with the code it was registered with, and says when it cannot."""

import json
from pathlib import Path

import mlflow
import pytest

from tasks.errors import UserError
from tasks.registry.predict_isolated import BATCH, ask

SOURCE = """
import mlflow, pandas as pd

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        from tasks.decoding import decode
        return pd.DataFrame({"predicted": [decode(content) for content in model_input["image"]]})

mlflow.models.set_model(Model())
"""
DECODING = """
def decode(content):
    if content == b"broken":
        raise ValueError("broken by its own code")
    return "NA" if content == b"0" else content.decode()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that brings along a package `tasks` of its own."""
    root = tmp_path_factory.mktemp("model")
    (root / "tasks").mkdir()
    (root / "tasks/__init__.py").touch()
    (root / "tasks/decoding.py").write_text(DECODING)
    (root / "model.py").write_text(SOURCE)
    code = [str(root / "tasks")]
    mlflow.pyfunc.save_model(root / "saved", python_model=str(root / "model.py"), code_paths=code, pip_requirements=["mlflow"])
    return root / "saved"


def test_it_answers_with_its_own_code_in_the_order_asked(model: Path, tmp_path: Path) -> None:
    images = [tmp_path / f"{number} é.png" for number in range(BATCH + 3)]
    for number, path in enumerate(images):
        path.write_bytes(str(number).encode())
    assert ask(model, images) == ["NA", *map(str, range(1, BATCH + 3))]


def test_what_it_cannot_answer_is_told(model: Path, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"broken")
    with pytest.raises(UserError, match="it does not predict: .*broken by its own code"):
        ask(model, [tmp_path / "image"])


def test_a_model_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "image").write_text(json.dumps(""))
    with pytest.raises(UserError, match="it does not predict: .*MLmodel"):
        ask(tmp_path, [tmp_path / "image"])
