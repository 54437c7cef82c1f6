"""Train a network so that it can be killed at any time.

The next call resumes after the last complete epoch and ends with the same weights.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from tasks.errors import UserError
from tasks.modeling import checkpoints
from tasks.modeling.batches import batch, batch_training, batch_validation, is_blending
from tasks.modeling.checkpoints import Checkpoint, Row, State
from tasks.modeling.images import Images, Sets
from tasks.params.architectures import Structure
from tasks.params.train import Train, select_epoch

# Computes further columns of a row from targets (images,) and probabilities (images, classes).
Measure = Callable[[NDArray[np.int32], NDArray[np.float32]], Row]
Kind = TypeVar("Kind", bound=Structure)


class DivergedError(UserError):
    """The loss is infinite or not a number."""


@dataclass(frozen=True)
class Watch:
    """Who follows a training.

    `on_epoch` takes the row of an epoch and the number of epochs in all. `measure` computes further
    columns of that row from the predictions for the validation images. `on_phase` takes the name of
    the work between epochs, the number of finished epochs, and the number of epochs in all.
    """

    on_epoch: Callable[[Row, int], None]
    measure: Measure | None = None
    on_phase: Callable[[str, int, int], None] = lambda phase, epoch, epochs: None


@dataclass(frozen=True)
class Job(Generic[Kind]):
    """A model to fit: on which images, with which checkpoint, and who follows.

    `binary` lets one sigmoid decide between two classes. `groups` has one entry for each training
    image; equal entries mark duplicates or one patient.
    """

    structure: Kind
    params: Train
    sets: Sets
    classes: int
    checkpoint: Checkpoint
    watch: Watch
    binary: bool = False
    groups: NDArray[np.object_] | None = None


@dataclass(frozen=True)
class Fitted:
    """A fitted model with its history.

    `features` is the network that computes the inputs of a classical model. `feature_seconds` is
    the time to compute the cached features, which is short if they were in the cache already.
    """

    model: keras.Model | Pipeline
    history: list[Row]
    parameters: int
    feature_seconds: float = 0.0
    features: keras.Model | None = None


@dataclass(frozen=True)
class Session:
    """How to train a network: `earlier` is the history that led to its present weights."""

    params: Train
    checkpoint: Checkpoint
    watch: Watch
    earlier: list[Row] = field(default_factory=list)


def use_threads(threads: int) -> None:
    """Set the threads of one operation, and let the memory of a GPU grow.

    Call this before TensorFlow computes anything.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)


def fit(model: keras.Model, sets: Sets, session: Session) -> list[Row]:
    """Train `model` in place and return one row for each epoch.

    The model ends with the weights of the epoch that `params.keep` selects. If no epoch is better
    than the earlier ones, it ends with the weights that it had before. A row has `epoch, loss,
    accuracy, val_loss, val_accuracy, learning_rate, seconds`; the training loss is weighted, the
    validation loss is not. Raises `DivergedError` if the loss is no longer a number.
    """
    params, watch = session.params, session.watch
    _compile(model, params, steps=math.ceil(len(sets.training.rows) / params.batch_size))
    state = State(model, _callbacks(params, session.checkpoint.file.stem))
    callbacks = keras.callbacks.CallbackList(state.callbacks, model=model)
    callbacks.on_train_begin()
    if session.earlier and params.keep == "best":
        state.best = model.get_weights()
        best = session.earlier[select_epoch(session.earlier, params)]
        state.callbacks[0].best = best[params.monitor]
    checkpoints.restore(session.checkpoint, state)
    for epoch in range(len(state.history), params.epochs):
        if model.stop_training:
            break
        row = _train_epoch(model, sets, params, epoch)
        if watch.measure is not None:
            row |= watch.measure(sets.validation.targets, predict(model, sets.validation))
        callbacks.on_epoch_end(epoch, dict(row))
        state.history.append(row)
        rows = [*session.earlier, *state.history]
        if params.keep == "best" and select_epoch(rows, params) == len(rows) - 1:
            state.best = model.get_weights()
        checkpoints.save(session.checkpoint, state)
        watch.on_epoch(row, params.epochs)
    callbacks.on_train_end()
    if state.best is not None:
        model.set_weights(state.best)
    return state.history


def predict(model: keras.Model, images: Images) -> NDArray[np.float32]:
    """Return the outputs of `model` for each row; probabilities have shape (rows, classes)."""
    return model.predict(batch(images), verbose=0)


def _compile(model: keras.Model, params: Train, steps: int) -> None:
    rate: float | keras.optimizers.schedules.LearningRateSchedule = params.learning_rate
    if params.schedule.kind == "cosine":
        floor = params.schedule.minimum / params.learning_rate
        rate = keras.optimizers.schedules.CosineDecay(
            params.learning_rate, params.epochs * steps, alpha=floor
        )
    optimizer = keras.optimizers.get(
        {"class_name": params.optimizer, "config": {"learning_rate": rate}}
    )
    optimizer.build(model.trainable_variables)
    loss = "categorical_crossentropy" if is_blending(params) else "sparse_categorical_crossentropy"
    # XLA is slower on CPUs, and not bit-equal to other compilations.
    model.compile(optimizer, loss, weighted_metrics=[], metrics=["accuracy"], jit_compile=False)


def _callbacks(params: Train, name: str) -> list[keras.callbacks.Callback]:
    """Return early stopping, the schedule of the learning rate, and TensorBoard if it is wanted."""
    stopping, schedule = params.early_stopping, params.schedule
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.EarlyStopping(
            params.monitor, patience=stopping.patience if stopping else params.epochs
        )
    ]
    if schedule.kind == "plateau":
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                "val_loss", schedule.factor, schedule.patience, min_lr=schedule.minimum
            )
        )
    if "TENSORBOARD_DIR" in os.environ:
        logs = Path(os.environ["TENSORBOARD_DIR"], name)
        callbacks.append(keras.callbacks.TensorBoard(logs, histogram_freq=1, write_graph=False))
    return callbacks


def _train_epoch(model: keras.Model, sets: Sets, params: Train, epoch: int) -> Row:
    start = time.perf_counter()
    rate, classes = float(model.optimizer.learning_rate), model.output_shape[-1]
    logs = model.fit(
        batch_training(sets.training, params, epoch, classes),
        validation_data=batch_validation(sets.validation, params, classes),
        initial_epoch=epoch,
        epochs=epoch + 1,
        verbose=0,
    ).history
    scores = {name: values[0] for name, values in logs.items()}
    row = {"epoch": epoch + 1, **scores, "learning_rate": rate}
    if not all(math.isfinite(value) for value in row.values()):
        raise DivergedError(
            f"epoch {epoch + 1}: the loss is {row['loss']}, the validation loss {row['val_loss']}: "
            f"the training has diverged. Lower learning_rate ({params.learning_rate:g}) in "
            "params.yaml."
        )
    return row | {"seconds": time.perf_counter() - start}
