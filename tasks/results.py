"""Where an architecture or an ensemble has its files, and what they are called."""

from pathlib import Path

# In a model's folder, data/models/<name>.
CLASSES_JSON = "classes.json"  # in the order of the model's outputs
CALIBRATION_JSON = "calibration.json"  # the temperature of its probabilities

# In the folder of its results, data/results/<name>.
PREDICTIONS_CSV = "predictions.csv"
HISTORY_CSV = "history.csv"
TIMING_JSON = "timing.json"
METRICS_JSON = "metrics.json"
THRESHOLDS_JSON = "thresholds.json"

INDEX = "ensembles.json"  # in the folder of the ensembles: the vote and all members' weights of each


def find_folder(name: str, folder: Path, ensembles: Path) -> Path:
    """Return what is of `name` in `folder`, such as data/results/cnn_a; of an ensemble data/ensembles/results/<name>.

    `folder` is data/models or data/results. No ensemble has the name of an architecture: params say so.
    """
    inside = ensembles / folder.name / name
    return inside if inside.is_dir() else folder / name
