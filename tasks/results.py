"""Names and folders of the files of an architecture or an ensemble.

DVC does not track the times of a training, which are in `data/timing/`. They differ from run to
run, and DVC would train again if only they differed. A file of times is named after a hash of the
predictions. So the times of this machine are never shown for a model that another machine trained.
"""

import hashlib
import json
from pathlib import Path

from tasks.errors import UserError

# In a model's folder, data/models/<name>.
CLASSES_JSON = "classes.json"  # in the order of the model's outputs
CALIBRATION_JSON = "calibration.json"  # the temperature of its probabilities

# In the folder of its results, data/results/<name>.
PREDICTIONS_CSV = "predictions.csv"
HISTORY_CSV = "history.csv"
SIZE_JSON = "size.json"  # the number of its parameters
METRICS_JSON = "metrics.json"
THRESHOLDS_JSON = "thresholds.json"

TIMING = Path("data/timing")
INDEX = "ensembles.json"  # in the folder of the ensembles: vote and members' weights of each


def find_folder(name: str, folder: Path, ensembles: Path) -> Path:
    """Return the folder of an architecture or an ensemble.

    In the `folder` data/results (or data/models) this is data/results/<name>; for an ensemble it is
    data/ensembles/results/<name>. The check of params ensures that no name is both.
    """
    inside = ensembles / folder.name / name
    return inside if inside.is_dir() else folder / name


def write_temperature(temperature: float, folder: Path) -> None:
    """Write the temperature that calibrates the model in `folder`."""
    content = json.dumps({"temperature": temperature}, indent=2)
    (folder / CALIBRATION_JSON).write_text(content + "\n")


def write_timing(timing: dict[str, object], results: Path) -> None:
    """Write the times of the model with these `results`."""
    file = _timing_file(results)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(timing, indent=2) + "\n")


def read_timing(results: Path) -> dict[str, object]:
    """Return the times of the model with these `results`, {} if another machine trained it."""
    file = _timing_file(results)
    return json.loads(file.read_text()) if file.exists() else {}


def read_temperature(file: Path) -> float:
    """Read a model's `calibration.json`. Raises `UserError` if it has no temperature."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        found = "no file"
    except ValueError as error:
        found = f"a damaged file ({error})"
    temperature = found.get("temperature") if isinstance(found, dict) else None
    if not isinstance(temperature, int | float) or not 0 < temperature < float("inf"):
        raise UserError(
            f'{file}: expected {{"temperature": T}} with T above 0, received {found}; '
            "train the model again"
        )
    return float(temperature)


def _timing_file(results: Path) -> Path:
    sha256 = hashlib.sha256((results / PREDICTIONS_CSV).read_bytes()).hexdigest()
    return TIMING / f"{results.name}_{sha256[:16]}.json"
