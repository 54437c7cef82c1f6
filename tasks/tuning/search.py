"""What is searched: an architecture, its ranges, and what a trial is scored by, known by all that decides its trials.

Equal data, ranges, objective and seed, and equal keys of the architecture that are not searched, are one search: it goes on.
Anything else is another one. What stands in params.yaml for a searched key decides nothing, so it may be written there.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import UserError
from tasks.params.architectures import Architecture, Classical
from tasks.params.search_space import Range, vary
from tasks.params.tune import Tune
from tasks.params.whole import Params
from tasks.tracking.hashes import file_sha256

KINDS = ("hyperband", "random")


@dataclass(frozen=True)
class Search:
    """What is searched: `section` is the architecture as params.yaml has it, `name` that of the study."""

    architecture: str
    kind: str
    section: Architecture
    tune: Tune
    name: str

    @property
    def space(self) -> dict[str, Range]:
        """Where it looks: ranges by dotted path."""
        return self.tune.space[self.architecture]

    @property
    def epochs(self) -> int:
        """The most that a trial trains on one fold; of a scikit-learn model one."""
        structure = self.section.structure
        if isinstance(structure, Classical):
            return 1
        return self.tune.epochs + sum(phase.epochs for phase in getattr(structure, "phases", ()))

    @property
    def steps(self) -> int:
        """How often a whole trial is scored: after each epoch of each fold."""
        return self.epochs * (self.tune.folds or 1)

    @property
    def maximizes(self) -> bool:
        """Whether more is better."""
        return self.tune.objective != "val_loss"


def define(
    params: Params,
    architecture: str,
    kind: str,
    splits_csv: Path,
    class_weights: Path,
    bits: int | None = None,
) -> Search:
    """Return the search that params ask for. Raises `UserError` where they name no space for the architecture."""
    if kind not in KINDS:
        raise UserError(f"search: received {kind!r}, expected {' or '.join(KINDS)}")
    tune = searched(params, architecture)
    section = params.architectures[architecture]
    ends = {path: values.ends[0] for path, values in tune.space[architecture].items()}
    fixed = vary(
        section,
        ends if isinstance(section.structure, Classical) else ends | {"epochs": tune.epochs},
    )
    told = tune.model_dump(mode="json", exclude={"trials", "space"})
    space = {
        path: values.model_dump(mode="json") for path, values in tune.space[architecture].items()
    }
    files = [file_sha256(file) for file in (splits_csv, class_weights, *fixed.weights_files)]
    parts = [
        kind,
        told,
        space,
        fixed.model_dump(mode="json"),
        files,
        *([] if bits is None else [bits]),
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return Search(architecture, kind, section, tune, f"{architecture}-{kind}-{key[:16]}")


def searched(params: Params, architecture: str) -> Tune:
    """Return the section `tune`. Raises `UserError` where it has no space for the architecture."""
    spaces = params.tune.space if params.tune else {}
    if architecture in spaces:
        return params.tune
    if architecture not in params.architectures:
        raise UserError(
            f"unknown architecture {architecture!r}, known are {', '.join(params.architectures)}"
        )
    raise UserError(
        f"params.yaml has no ranges for {architecture}: received tune.space of {', '.join(spaces) or 'nothing'}, expected\n"
        f"  tune:\n    space:\n      {architecture}:\n        learning_rate: {{low: 0.0001, high: 0.01, log: true}}"
    )
