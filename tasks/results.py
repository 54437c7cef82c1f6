"""Where an architecture or an ensemble has its files: both have a model and results, in folders of the same names."""

from pathlib import Path

INDEX = "ensembles.json"  # in the folder of the ensembles: the vote and all members' weights of each


def place(name: str, folder: Path, ensembles: Path) -> Path:
    """Return what is of `name` in `folder`, such as data/results/cnn_a; of an ensemble data/ensembles/results/<name>.

    `folder` is data/models or data/results. No ensemble has the name of an architecture: params say so.
    """
    inside = ensembles / folder.name / name
    return inside if inside.is_dir() else folder / name
