"""Several saved models in one folder, as one that predicts: `ensemble.json` says who they are, and how their answers combine.

`members/<name>` are folders of `tasks.modeling.saved`, each with its own form of pictures, views and temperature; beside them
`classes.json`, and `calibration.json`, the temperature of the ensemble.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from tasks.errors import UserError
from tasks.inference import voting
from tasks.inference.voting import Vote
from tasks.modeling import saved, temperature
from tasks.params.model_input import Form, shape_of
from tasks.results import CALIBRATION_JSON, CLASSES_JSON, read_temperature

FILE, MEMBERS = "ensemble.json", "members"


@dataclass(frozen=True)
class Committee:
    """How an ensemble comes to an answer: `weights` of its members sum to one, in the order in which these are asked."""

    vote: Vote
    weights: dict[str, float]

    def answer(
        self, probabilities: Sequence[np.ndarray], distances: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities (images, classes) before the ensemble's temperature, and the distances (images,).

        `probabilities` and `distances` are the members' own, one after the other.
        """
        weights = np.array(list(self.weights.values()))
        return voting.combine(np.stack(probabilities), weights, self.vote), voting.distances(
            np.stack(distances), weights
        )


def is_one(folder: Path) -> bool:
    """Say whether a model's folder holds an ensemble."""
    return (folder / FILE).exists()


def save(made: Committee, degrees: float, members: Mapping[str, Path], folder: Path) -> None:
    """Write an ensemble of the models in the folders `members`, which are copied."""
    for name in made.weights:
        shutil.copytree(members[name], folder / MEMBERS / name)
    shutil.copyfile(members[name] / CLASSES_JSON, folder / CLASSES_JSON)
    (folder / FILE).write_text(
        json.dumps({"vote": made.vote, "weights": made.weights}, indent=2) + "\n"
    )
    (folder / CALIBRATION_JSON).write_text(json.dumps({"temperature": degrees}, indent=2) + "\n")


def committee(folder: Path) -> Committee:
    """Return who the members of an ensemble are, and how they vote. Raises as `load` does."""
    file = folder / FILE
    content = saved.read(file)
    try:
        weights = {name: float(weight) for name, weight in content["weights"].items()}
        vote = content["vote"]
        if (
            vote not in get_args(Vote)
            or not weights
            or not all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in weights)
        ):
            raise UserError("unknown vote, or names that are none")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: expected vote and weights, as the stage combine wrote them, received {content}"
        ) from error
    return Committee(vote, weights)


def load(folder: Path) -> saved.Saved:
    """Return the ensemble of `folder`. Raises `UserError` where its files do not fit together."""
    said, classes = committee(folder), saved.read(folder / CLASSES_JSON)
    degrees = read_temperature(folder / CALIBRATION_JSON)
    members = [saved.load(folder / MEMBERS / name) for name in said.weights]
    for name, member in zip(said.weights, members, strict=True):
        if member.classes != classes:
            raise UserError(
                f"{folder}: {name} tells {', '.join(member.classes)} apart, the ensemble {', '.join(classes)}"
            )
    forms = tuple(dict.fromkeys(form for member in members for form in member.forms))

    def answer(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        saved.check_pixels(pixels, shape_of(forms))
        of_form = cut(pixels, forms)
        given = [member.answer(of_form[member.forms[0]]) for member in members]
        probabilities, distances = said.answer(*zip(*given, strict=True))
        return temperature.apply(probabilities, degrees), distances

    return saved.Saved(classes, forms, answer)


def cut(pixels: np.ndarray, forms: Sequence[Form]) -> dict[Form, np.ndarray]:
    """Return the pixels of each form, (images, height, width, channels), of those that `shape_of(forms)` holds."""
    flat = pixels.reshape(len(pixels), -1)
    ends = np.cumsum([np.prod(form.shape) for form in forms])[:-1]
    parts = np.split(flat, ends, axis=1)
    return {
        form: part.reshape(len(pixels), *form.shape)
        for form, part in zip(forms, parts, strict=True)
    }
