"""Train a head on a pretrained backbone, then parts of the backbone itself, phase by phase.

The layers below the first trained layer run once for each image and cached view (`features.py`);
only the rest is trained. A phase without cached views runs the frozen layers again in each epoch,
on freshly augmented images.
"""

import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from tasks.errors import UserError
from tasks.modeling import backbones, features, saved
from tasks.modeling import out_of_distribution as ood
from tasks.modeling.checkpoints import Row
from tasks.modeling.images import Images, Sets
from tasks.modeling.training import Fitted, Job, Session, Watch, fit, predict
from tasks.params.architectures import Phase, Transfer
from tasks.params.augmentation import Augmentation
from tasks.params.train import Train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Twins:
    """Two models with the same frozen weights.

    `trained` is trained, in the precision that params name. `plain` is in float32 and is saved.
    """

    trained: keras.Model
    plain: keras.Model


@dataclass(frozen=True)
class PhasePlan:
    """One phase of a training: its `number` of `count`, and the `first` layer that it trains."""

    phase: Phase
    number: int
    count: int
    first: int

    @property
    def label(self) -> str:
        """Return a prefix of log lines, which is empty if there is only one phase."""
        return f"phase {self.number}/{self.count}: " if self.count > 1 else ""

    def number_row(self, row: Row, done: int) -> Row:
        """Return the row of an epoch with its phase, numbered after the `done` epochs before."""
        phase = {"phase": self.number} if self.count > 1 else {}
        return {**phase, **row, "epoch": row["epoch"] + done}


def fit_transfer(job: Job[Transfer]) -> Fitted:
    """Train all phases; return the plain model at the selected epoch.

    The rows of the history have a `phase` if there are several. Raises `UserError` for weights or
    layers that do not fit the backbone.
    """
    twins = _build(job)
    epochs = job.params.epochs + job.structure.later_epochs
    history: list[Row] = []
    seconds = 0.0
    for plan in _plan(twins.plain, job.structure, job.params):
        started = time.perf_counter()
        cached = _caches_features(plan.phase, job.params)
        job.watch.on_phase("features" if cached else "", len(history), epochs)
        trunk, settings, sets = _prepare(job, plan, twins)
        seconds += time.perf_counter() - started
        _log_phase(plan, trunk, sets)
        done = len(history)

        def on_epoch(row: Row, _: int, plan: PhasePlan = plan, done: int = done) -> None:
            job.watch.on_epoch(plan.number_row(row, done), epochs)

        watch = Watch(on_epoch, job.watch.measure)
        session = Session(settings, job.checkpoint.select_phase(plan.number), watch, list(history))
        history += [plan.number_row(row, done) for row in fit(trunk, sets, session)]
    twins.plain.set_weights(twins.trained.get_weights())
    return Fitted(twins.plain, history, twins.plain.count_params(), seconds)


def predict_transfer(
    folder: Path, structure: Transfer, images: Images
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return probabilities and the statistics of the last feature map, by the saved model.

    Cached features are reused: their key holds the weights of the file, so they fit the saved
    model. If the cut is above the last feature map, its statistics take one more pass, once for
    each backbone.
    """
    model = saved.load_keras(folder / "model.keras")
    parts = cut_where_cached(model, structure)
    if parts is None:
        probabilities, statistics = predict(ood.add_statistics(model), images)
        return probabilities, statistics
    below, above = parts
    inputs = replace(images, pixels=features.compute(below, structure, images))
    if ood.find_last_map(model) in above.layers:
        probabilities, statistics = predict(ood.add_statistics(model, below.output), inputs)
        return probabilities, statistics
    statistics = features.compute(ood.build_statistics_model(model), structure, images)
    return predict(above, inputs), statistics


def cut_where_cached(
    model: keras.Model, structure: Transfer
) -> tuple[keras.Model, keras.Model] | None:
    """Cut a finished model where its last phase was cut; None if that phase cached no features."""
    last = structure.phases[-1] if structure.phases else structure
    if last.views is None:
        return None
    return backbones.cut(model, backbones.find_layer(model, last.trainable_from))


def _build(job: Job[Transfer]) -> Twins:
    structure, form = job.structure, job.params.form
    arguments = (structure, form.shape, job.classes, job.binary)
    plain = backbones.build_transfer(*arguments)
    backbones.load_weights(plain, structure, form.image_size)
    with backbones.use_precision(structure.precision):
        trained = backbones.build_transfer(*arguments)
    trained.set_weights(plain.get_weights())
    return Twins(trained, plain)


def _plan(model: keras.Model, structure: Transfer, params: Train) -> list[PhasePlan]:
    """Return the phases. Raises `UserError` if one freezes layers that an earlier phase trained.

    The keys of the structure itself describe the first phase.
    """
    first = Phase(
        trainable_from=structure.trainable_from,
        epochs=params.epochs,
        learning_rate=params.learning_rate,
        views=structure.views,
    )
    phases = [first, *structure.phases]
    starts = [backbones.find_layer(model, phase.trainable_from) for phase in phases]
    for before, after, phase in zip(starts, starts[1:], phases[1:], strict=False):
        if after > before:
            raise UserError(
                f"phases: {phase.trainable_from} is above the layers that the previous phase "
                "trained; expected a lower layer"
            )
    return [
        PhasePlan(phase, number, len(phases), start)
        for number, (phase, start) in enumerate(zip(phases, starts, strict=True), 1)
    ]


def _prepare(job: Job[Transfer], plan: PhasePlan, twins: Twins) -> tuple[keras.Model, Train, Sets]:
    """Freeze layers; return the model to train, its parameters, and its images or features."""
    phase, params = plan.phase, job.params
    backbones.freeze(twins.trained, plan.first)
    params = params.model_copy(
        update={"epochs": phase.epochs, "learning_rate": phase.learning_rate}
    )
    below, above = backbones.cut(twins.trained, plan.first)
    below.trainable = False
    if not _caches_features(phase, params):
        pixels = keras.Input(below.input.shape[1:], dtype="uint8")
        return keras.Model(pixels, above(below(pixels, training=False))), params, job.sets
    plain_below = backbones.cut(twins.plain, plan.first)[0]
    sets = _compute_features(plain_below, job)
    if params.augmentation is not None:
        views = _compute_views(below, job, params.augmentation, phase.views or 0)
        sets = replace(sets, training=replace(sets.training, cached_views=views))
    return above, params.model_copy(update={"augmentation": None}), sets


def _caches_features(phase: Phase, params: Train) -> bool:
    """Tell whether a phase trains on cached features, of augmented copies or of the images."""
    return phase.views is not None or params.augmentation is None


def _compute_features(below: keras.Model, job: Job[Transfer]) -> Sets:
    computed = features.compute(below, job.structure, job.sets.every)
    every, training, validation = (
        replace(images, pixels=computed)
        for images in (job.sets.every, job.sets.training, job.sets.validation)
    )
    return Sets(every, training, validation)


def _compute_views(
    below: keras.Model, job: Job[Transfer], augmentation: Augmentation, count: int
) -> tuple[NDArray[np.float16], ...]:
    """Compute the features of `count` augmented copies of the training images."""
    if augmentation.mixup is not None:
        raise UserError(
            "augmentation.mixup blends the images of a batch, which cached views cannot do: "
            "set views: null to use it"
        )
    return tuple(
        features.compute_view(
            below,
            job.structure,
            job.sets.training,
            features.View(augmentation, job.params.seed, number),
        )
        for number in range(count)
    )


def _log_phase(plan: PhasePlan, trunk: keras.Model, sets: Sets) -> None:
    trained = sum(math.prod(weight.shape) for weight in trunk.trainable_weights)
    on_images = sets.training.pixels.dtype == np.uint8
    inputs = "images" if on_images else f"features of shape {trunk.input.shape[1:]}"
    log.info("%s%s parameters to train on %s", plan.label, f"{trained:,}", inputs)
