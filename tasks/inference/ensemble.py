"""Several saved models in one folder that predict together.

`ensemble.json` has the vote and the weight of each member. `members/<name>` are folders of
`tasks.modeling.saved`, each with a model input, views and a temperature of its own. Beside them are
`classes.json`, and `calibration.json` with the temperature of the ensemble.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tasks.errors import UserError
from tasks.inference import voting
from tasks.inference.voting import Vote
from tasks.modeling import saved, temperature
from tasks.params.model_input import Form, shape_of
from tasks.results import CALIBRATION_JSON, CLASSES_JSON, read_temperature, write_temperature

FILE, MEMBERS = "ensemble.json", "members"


@dataclass(frozen=True)
class Combination:
    """How the predictions of the members are combined.

    `weights` sum to one. Their order is the order in which the members predict.
    """

    vote: Vote
    weights: dict[str, float]

    def combine(
        self, probabilities: Sequence[NDArray[Any]], distances: Sequence[NDArray[Any]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return probabilities (images, classes) and distances (images,) of the ensemble.

        The arguments have one array for each member. The result is not yet calibrated.
        """
        weights = np.array(list(self.weights.values()))
        combined = voting.combine(np.stack(probabilities), weights, self.vote)
        return combined, voting.average_distances(np.stack(distances), weights)


def is_ensemble(folder: Path) -> bool:
    """Tell whether a model's folder contains an ensemble."""
    return (folder / FILE).exists()


def save(
    combination: Combination, temperature: float, members: Mapping[str, Path], folder: Path
) -> None:
    """Write an ensemble. The members are copied from their folders."""
    for name in combination.weights:
        shutil.copytree(members[name], folder / MEMBERS / name)
    shutil.copyfile(members[name] / CLASSES_JSON, folder / CLASSES_JSON)
    content = {"vote": combination.vote, "weights": combination.weights}
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n")
    write_temperature(temperature, folder)


def read_combination(folder: Path) -> Combination:
    """Read the vote and the weights of an ensemble. Raises as `load` does."""
    file = folder / FILE
    content = saved.read_json(file)
    try:
        weights = {name: float(weight) for name, weight in content["weights"].items()}
        vote = content["vote"]
        named = all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in weights)
        if vote not in get_args(Vote) or not weights or not named:
            raise UserError("unknown vote, or no valid names of members")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: expected vote and weights, as the stage combine wrote them, received "
            f"{content}"
        ) from error
    return Combination(vote, weights)


def load(folder: Path) -> saved.Saved:
    """Load the ensemble of `folder`. Raises `UserError` if its files do not fit together."""
    combination, classes = read_combination(folder), saved.read_classes(folder)
    fitted = read_temperature(folder / CALIBRATION_JSON)
    members = [saved.load(folder / MEMBERS / name) for name in combination.weights]
    for name, member in zip(combination.weights, members, strict=True):
        if member.classes != classes:
            raise UserError(
                f"{folder}: the classes of {name} are {', '.join(member.classes)}, but the "
                f"classes of the ensemble are {', '.join(classes)}"
            )
    forms = tuple(dict.fromkeys(form for member in members for form in member.forms))

    def answer(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        saved.check_pixels(pixels, shape_of(forms))
        pixels_of = split_forms(pixels, forms)
        predictions = [member.answer(pixels_of[member.forms[0]]) for member in members]
        probabilities, distances = combination.combine(*zip(*predictions, strict=True))
        return temperature.apply(probabilities, fitted), distances

    return saved.Saved(classes, forms, answer)


def split_forms(pixels: NDArray[np.uint8], forms: Sequence[Form]) -> dict[Form, NDArray[np.uint8]]:
    """Split pixels of `shape_of(forms)` into (images, height, width, channels) of each form."""
    flat = pixels.reshape(len(pixels), -1)
    ends = np.cumsum([np.prod(form.shape) for form in forms])[:-1]
    parts = np.split(flat, ends, axis=1)
    return {
        form: part.reshape(len(pixels), *form.shape)
        for form, part in zip(forms, parts, strict=True)
    }
