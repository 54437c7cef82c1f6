"""Train a head on a pretrained backbone, and then as much of the backbone as the params unfreeze, phase by phase.

What lies below the first trained layer runs once per image and view (`features.py`); only the rest is trained. A phase
without cached views runs the frozen part anew on the changed images of each epoch.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from tasks.errors import UserError
from tasks.modeling import backbones, features
from tasks.modeling.training import Images, Measure, Row, fit
from tasks.params.architectures import Phase, Transfer
from tasks.params.train import Train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sets:
    """All images, and which of them train and which validate."""

    every: Images
    training: Images
    validation: Images


@dataclass(frozen=True)
class Pair:
    """The model that is trained, and the plain one of equal frozen weights that is saved in the end."""

    trained: keras.Model
    plain: keras.Model


def fit_transfer(
    structure: Transfer,
    params: Train,
    sets: Sets,
    answers: tuple[int, bool],
    checkpoint: Path,
    key: str,
    on_epoch: Callable[[Row, int], None],
    measure: Measure | None = None,
) -> tuple[keras.Model, list[Row], float]:
    """Return the plain model at the epoch that was kept, the history, and the seconds spent on cached features.

    `answers` are the number of classes and whether they are one against the rest. Rows are those of `training.fit`, with
    a `phase` where there are several; `on_epoch` takes a row and the number of all epochs. Each phase has a checkpoint
    of its own beside `checkpoint`; `measure` is that of `training.fit`. Raises `UserError` for weights or layers that do not fit.
    """
    pair = _build(structure, params, answers)
    phases = [_first(structure, params), *structure.phases]
    epochs = sum(phase.epochs for phase in phases)
    history: list[Row] = []
    seconds = 0.0
    for number, (phase, first) in enumerate(
        zip(phases, _starts(pair.plain, phases), strict=True), 1
    ):
        started = time.perf_counter()
        trunk, settings, inputs = _prepare(structure, params, phase, first, pair, sets)
        seconds += time.perf_counter() - started
        _tell(number, phases, trunk, inputs)
        file, placed = (
            checkpoint.with_suffix(f".{number}.npz"),
            _placed(number, phases, len(history)),
        )
        rows = fit(
            trunk, inputs.training, inputs.validation, settings, file, f"{key} {number}",
            lambda row, placed=placed: on_epoch(placed(row), epochs), tuple(history), measure,
        )  # fmt: skip
        history += map(placed, rows)
    pair.plain.set_weights(pair.trained.get_weights())
    return pair.plain, history, seconds


def cut_where_cached(
    model: keras.Model, structure: Transfer
) -> tuple[keras.Model, keras.Model] | None:
    """Cut a finished model where its last phase was cut, if that phase cached its features."""
    last = structure.phases[-1] if structure.phases else structure
    if last.views is None:
        return None
    return backbones.cut(model, backbones.position(model, last.trainable_from))


def _build(structure: Transfer, params: Train, answers: tuple[int, bool]) -> Pair:
    arguments = (structure, params.image_size, params.channels, *answers)
    plain = backbones.build_transfer(*arguments)
    backbones.load_weights(plain, structure, params.image_size)
    with backbones.precision(structure.precision):
        trained = backbones.build_transfer(*arguments)
    trained.set_weights(plain.get_weights())
    return Pair(trained, plain)


def _first(structure: Transfer, params: Train) -> Phase:
    return Phase(
        trainable_from=structure.trainable_from,
        epochs=params.epochs,
        learning_rate=params.learning_rate,
        views=structure.views,
    )


def _starts(model: keras.Model, phases: list[Phase]) -> list[int]:
    """Return the first trained layer of each phase. Raises `UserError` where a phase would freeze what was trained."""
    starts = [backbones.position(model, phase.trainable_from) for phase in phases]
    for before, after, phase in zip(starts, starts[1:], phases[1:], strict=False):
        if after > before:
            raise UserError(
                f"phases: {phase.trainable_from} lies above what the phase before trained; expected a lower layer"
            )
    return starts


def _prepare(
    structure: Transfer, params: Train, phase: Phase, first: int, pair: Pair, sets: Sets
) -> tuple[keras.Model, Train, Sets]:
    """Freeze, and return the model to train, the params and images for it: features where the phase caches them."""
    backbones.freeze(pair.trained, first)
    params = params.model_copy(
        update={"epochs": phase.epochs, "learning_rate": phase.learning_rate}
    )
    below, above = backbones.cut(pair.trained, first)
    below.trainable = False
    if phase.views is None and params.augmentation is not None:
        pixels = keras.Input(below.input.shape[1:], dtype="uint8")
        return keras.Model(pixels, above(below(pixels, training=False))), params, sets
    every = replace(
        sets.every,
        pixels=features.plain(backbones.cut(pair.plain, first)[0], structure, sets.every),
    )
    training, validation = (
        replace(part, pixels=every.pixels) for part in (sets.training, sets.validation)
    )
    if params.augmentation is not None:
        if params.augmentation.mixup is not None:
            raise UserError(
                "augmentation.mixup blends the images of a batch, and cached views know none: say views: null with it"
            )
        changes = (
            features.view(below, structure, sets.training, params.augmentation, params.seed, n)
            for n in range(phase.views)
        )
        training = replace(training, views=tuple(changes))
    return (
        above,
        params.model_copy(update={"augmentation": None}),
        Sets(every, training, validation),
    )


def _placed(number: int, phases: list[Phase], done: int) -> Callable[[Row], Row]:
    """Return what gives a phase's row its place in the whole history."""
    phase = {"phase": number} if len(phases) > 1 else {}
    return lambda row: {**phase, **row, "epoch": row["epoch"] + done}


def _tell(number: int, phases: list[Phase], trunk: keras.Model, inputs: Sets) -> None:
    trained = sum(math.prod(weight.shape) for weight in trunk.trainable_weights)
    kind = (
        "images"
        if inputs.training.pixels.dtype == "uint8"
        else f"features of shape {trunk.input.shape[1:]}"
    )
    log.info(
        "%s%s parameters to train on %s",
        f"phase {number}/{len(phases)}: " if len(phases) > 1 else "",
        f"{trained:,}",
        kind,
    )
