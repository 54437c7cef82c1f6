"""Define a search: an architecture, its search space, and the objective of its trials.

The name of a search is a hash of everything that decides its trials: the data, the search space,
the objective, the seed, and the keys of the architecture that are not searched. An equal search
continues; anything else begins a new one. The values in params.yaml of searched keys do not
count, so the best values can be written there.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import UserError
from tasks.params.architectures import Architecture
from tasks.params.search_space import Range, vary
from tasks.params.tune import Tune
from tasks.params.whole import Params
from tasks.tracking.hashes import file_sha256

KINDS = ("hyperband", "random")


@dataclass(frozen=True)
class Inputs:
    """The data that decide the result of a trial. `bits` is the bit depth of the images."""

    splits_csv: Path
    class_weights: Path
    bits: int | None = None


@dataclass(frozen=True)
class Search:
    """A search with the architecture as in params.yaml; `name` is the name of its Optuna study."""

    architecture: str
    kind: str
    section: Architecture
    tune: Tune
    name: str

    @property
    def space(self) -> dict[str, Range]:
        """Return the ranges of values by dotted path."""
        return self.tune.space[self.architecture]

    @property
    def epochs(self) -> int:
        """Return the most epochs that a trial trains on one fold."""
        structure = self.section.structure
        return self.tune.epochs + structure.later_epochs if structure.in_epochs else 1

    @property
    def steps(self) -> int:
        """Return how often a complete trial is scored: after each epoch of each fold."""
        return self.epochs * (self.tune.folds or 1)

    @property
    def maximizes(self) -> bool:
        """Tell whether a higher score is better."""
        return self.tune.objective != "val_loss"

    def apply(self, values: dict[str, object]) -> Architecture:
        """Return the architecture with the values of a trial and the epochs of `tune`."""
        epochs = {"epochs": self.tune.epochs} if self.section.structure.in_epochs else {}
        return vary(self.section, values | epochs)


def define(params: Params, architecture: str, kind: str, inputs: Inputs) -> Search:
    """Define the search that params describe.

    Raises `UserError` if they have no search space for the architecture.
    """
    if kind not in KINDS:
        raise UserError(f"search: received {kind!r}, expected {' or '.join(KINDS)}")
    tune = find_space(params, architecture)
    unnamed = Search(architecture, kind, params.architectures[architecture], tune, "")
    fixed = unnamed.apply({path: values.ends[0] for path, values in unnamed.space.items()})
    files = (inputs.splits_csv, inputs.class_weights, *fixed.weights_files)
    parts: list[object] = [
        kind,
        tune.model_dump(mode="json", exclude={"trials", "space"}),
        {path: values.model_dump(mode="json") for path, values in unnamed.space.items()},
        fixed.model_dump(mode="json"),
        [file_sha256(file) for file in files],
    ]
    if inputs.bits is not None:
        parts.append(inputs.bits)
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return Search(architecture, kind, unnamed.section, tune, f"{architecture}-{kind}-{key[:16]}")


def find_space(params: Params, architecture: str) -> Tune:
    """Return the section `tune`. Raises `UserError` if it has no space for the architecture."""
    spaces = params.tune.space if params.tune else {}
    if params.tune and architecture in spaces:
        return params.tune
    if architecture not in params.architectures:
        known = ", ".join(params.architectures)
        raise UserError(f"unknown architecture {architecture!r}, known are {known}")
    raise UserError(
        f"params.yaml has no ranges for {architecture}: received tune.space of "
        f"{', '.join(spaces) or 'nothing'}, expected\n"
        f"  tune:\n    space:\n      {architecture}:\n"
        "        learning_rate: {low: 0.0001, high: 0.01, log: true}"
    )
