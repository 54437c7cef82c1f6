"""Save a training after each epoch, and resume it after a kill."""

import json
import logging
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

FOLDER = Path(".cache/checkpoints")
# The attributes that these callbacks carry from epoch to epoch.
MEMORY = {
    "EarlyStopping": ("wait", "best", "best_epoch"),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
}

Row = dict[str, float]  # one epoch of a history

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file. It is resumed only by a training of the same `key`."""

    file: Path
    key: str

    def select_phase(self, number: int) -> "Checkpoint":
        """Return the checkpoint of one phase of this training."""
        return Checkpoint(self.file.with_suffix(f".{number}.npz"), f"{self.key} {number}")


@dataclass
class State:
    """A training between two epochs. `best` holds the weights of the best epoch so far."""

    model: keras.Model
    callbacks: list[keras.callbacks.Callback]
    history: list[Row] = field(default_factory=list)
    best: list[NDArray[Any]] | None = None

    @property
    def variables(self) -> list[keras.Variable]:
        """Return the variables of the model and of its optimizer."""
        return [*self.model.variables, *self.model.optimizer.variables]


def save(checkpoint: Checkpoint, state: State) -> None:
    """Replace the checkpoint file by the current state, so that a kill never leaves half a file."""
    memory = [
        {name: getattr(callback, name) for name in MEMORY.get(type(callback).__name__, ())}
        for callback in state.callbacks
    ]
    facts = {
        "key": checkpoint.key,
        "history": state.history,
        "memory": memory,
        "stopped": bool(state.model.stop_training),
    }
    arrays = {f"variable_{i}": np.asarray(value) for i, value in enumerate(state.variables)}
    arrays |= {f"best_{i}": weights for i, weights in enumerate(state.best or ())}
    arrays["state"] = np.array(json.dumps(facts, default=float))
    checkpoint.file.parent.mkdir(parents=True, exist_ok=True)
    part = checkpoint.file.with_suffix(".part")
    try:
        with part.open("wb") as target:
            np.savez(target, allow_pickle=False, **arrays)
        part.replace(checkpoint.file)
    finally:
        part.unlink(missing_ok=True)


def restore(checkpoint: Checkpoint, state: State) -> None:
    """Load the checkpoint into `state`.

    A missing or damaged file, or one with another key, leaves `state` as it is.
    """
    try:
        saved = np.load(checkpoint.file, allow_pickle=False)
        facts = json.loads(str(saved["state"]))
    except FileNotFoundError:
        return
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError):
        log.info("%s is damaged: the training starts again", checkpoint.file)
        return
    if facts["key"] != checkpoint.key:
        return
    for i, variable in enumerate(state.variables):
        variable.assign(saved[f"variable_{i}"])
    # Not strict: TensorBoard may have been added or removed since.
    for callback, memory in zip(state.callbacks, facts["memory"], strict=False):
        for name, value in memory.items():
            setattr(callback, name, value)
    state.model.stop_training = facts["stopped"]
    state.history = facts["history"]
    weights = range(len(state.model.weights))
    state.best = [saved[f"best_{i}"] for i in weights if f"best_{i}" in saved] or None
    log.info("resuming after epoch %d", len(state.history))
