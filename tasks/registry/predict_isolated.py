"""Let a registered model predict images in a subprocess, with the code it was registered with.

As a script (`python -P predict_isolated.py MODEL IMAGES PREDICTIONS`) this module must import
nothing from `tasks`. Python has to find the package `tasks` that the model brings along. Otherwise
the model would decode images with today's code.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

BATCH = 64  # images in one call of the model


def predict_in_subprocess(model: Path, images: Sequence[Path]) -> list[str]:
    """Return the class that the MLflow model in the folder `model` predicts for each image.

    Raises `UserError` with the last line of the error output if the subprocess fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        images_json = Path(scratch, "images.json")
        predictions_json = Path(scratch, "predictions.json")
        images_json.write_text(json.dumps([str(path) for path in images]))
        files = [str(path) for path in (model, images_json, predictions_json)]
        command = [sys.executable, "-P", __file__, *files]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            from tasks.errors import UserError

            lines = result.stderr.strip().splitlines()
            raise UserError(f"it cannot predict: {lines[-1] if lines else 'no error output'}")
        return json.loads(predictions_json.read_text())


def main(model: Path, images_json: Path, predictions_json: Path) -> None:
    """Write the predicted class of each image."""
    import mlflow
    import pandas as pd

    loaded = mlflow.pyfunc.load_model(str(model), suppress_warnings=True)
    images = [Path(path) for path in json.loads(images_json.read_text())]
    predictions: list[str] = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        table = loaded.predict(pd.DataFrame({"image": [path.read_bytes() for path in batch]}))
        if "error" in table:
            for number, error in table["error"].dropna().items():
                raise ValueError(f"{batch[number]}: {error}")
        predictions += [str(label) for label in table["predicted"]]
    predictions_json.write_text(json.dumps(predictions))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
