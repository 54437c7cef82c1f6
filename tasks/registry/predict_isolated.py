"""A registered model predicts images anew, in a process of its own and with the code it was registered with.

Run as a script (`python -P predict_isolated.py MODEL IMAGES ANSWERS`) this module imports nothing of the package `tasks`: the
one that the model brings along must be the first that Python meets, or it would decode by today's code.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

BATCH = 64  # images handed over at once


def ask(model: Path, images: Sequence[Path]) -> list[str]:
    """Return the class that the MLflow model in the folder `model` gives each image file.

    Raises `UserError` with the last words of a model that cannot be loaded or does not answer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch, "images.json"), Path(scratch, "answers.json")
        asked.write_text(json.dumps([str(path) for path in images]))
        command = [sys.executable, "-P", __file__, str(model), str(asked), str(answered)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            from tasks.errors import UserError

            raise UserError(
                f"it does not predict: {(result.stderr.strip().splitlines() or ['no word of why'])[-1]}"
            )
        return json.loads(answered.read_text())


def main(model: Path, images_json: Path, answers_json: Path) -> None:
    """Write the class of each image: what `ask` starts."""
    import mlflow
    import pandas as pd

    loaded = mlflow.pyfunc.load_model(str(model), suppress_warnings=True)
    images = [Path(path) for path in json.loads(images_json.read_text())]
    answers: list[str] = []
    for start in range(0, len(images), BATCH):
        batch = pd.DataFrame(
            {"image": [path.read_bytes() for path in images[start : start + BATCH]]}
        )
        table = loaded.predict(batch)
        refused = table["error"].dropna() if "error" in table else []
        if len(refused):
            raise ValueError(f"{images[start + refused.index[0]]}: {refused.iloc[0]}")
        answers += [str(label) for label in table["predicted"]]
    answers_json.write_text(json.dumps(answers))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
