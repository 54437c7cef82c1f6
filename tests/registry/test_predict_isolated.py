"""A registered model predicts in a subprocess, with the code it was registered with.

`test_champion_gate.py` has the test of a model that cannot predict.
"""

from pathlib import Path

import mlflow
import pytest

from tasks.registry.predict_isolated import BATCH, predict_in_subprocess

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
    return "NA" if content == b"0" else content.decode()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model that brings along its own package `tasks`."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "tasks").mkdir()
    (root / "tasks/__init__.py").touch()
    (root / "tasks/decoding.py").write_text(DECODING)
    (root / "model.py").write_text(SOURCE)
    code = [str(root / "tasks")]
    mlflow.pyfunc.save_model(
        root / "saved",
        python_model=str(root / "model.py"),
        code_paths=code,
        pip_requirements=["mlflow"],
    )
    return root / "saved"


@pytest.mark.slow
def test_it_predicts_with_its_own_code_in_the_order_of_the_images(
    model: Path, tmp_path: Path
) -> None:
    images = [tmp_path / f"{number} é.png" for number in range(BATCH + 3)]
    for number, path in enumerate(images):
        path.write_bytes(str(number).encode())
    assert predict_in_subprocess(model, images) == ["NA", *map(str, range(1, BATCH + 3))]
