"""Where an architecture or an ensemble has its files, and what they are called.

How long a training took lies beside DVC, in `data/timing/`: no two trainings take equally long, and
DVC would train again where times alone differ. Times are named after the predictions, so they are
never told of a model that another machine trained.
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
INDEX = (
    "ensembles.json"  # in the folder of the ensembles: the vote and all members' weights of each
)


def find_folder(name: str, folder: Path, ensembles: Path) -> Path:
    """Return what is of `name` in `folder`, such as data/results/cnn_a; of an ensemble data/ensembles/results/<name>.

    `folder` is data/models or data/results. No ensemble has the name of an architecture: params say so.
    """
    inside = ensembles / folder.name / name
    return inside if inside.is_dir() else folder / name


def write_temperature(temperature: float, folder: Path) -> None:
    """Write the temperature that calibrates the model in `folder`."""
    content = json.dumps({"temperature": temperature}, indent=2)
    (folder / CALIBRATION_JSON).write_text(content + "\n")


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


def write_timing(timing: dict[str, object], results: Path) -> None:
    """Write how long the model took that made the predictions in `results`."""
    file = _timing_file(results)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(timing, indent=2) + "\n")


def read_timing(results: Path) -> dict[str, object]:
    """Return how long it took; {} where another machine trained it."""
    file = _timing_file(results)
    return json.loads(file.read_text()) if file.exists() else {}


def _timing_file(results: Path) -> Path:
    sha256 = hashlib.sha256((results / PREDICTIONS_CSV).read_bytes()).hexdigest()
    return TIMING / f"{results.name}_{sha256[:16]}.json"
