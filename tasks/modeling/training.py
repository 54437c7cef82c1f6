"""Fit a model so that it can be killed at any time: the next call goes on after the last whole epoch, and ends equal."""

import json
import logging
import math
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tasks.errors import UserError
from tasks.imaging import augmentation
from tasks.params.train import Train, select_epoch

# What these callbacks remember from epoch to epoch.
MEMORY = {
    "EarlyStopping": ("wait", "best", "best_epoch"),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
}
PREDICT_BATCH = 64

Row = dict[str, float]
Measure = Callable[
    [np.ndarray, np.ndarray], dict[str, float]
]  # of targets (images,) and probabilities (images, classes)

log = logging.getLogger(__name__)


class DivergedError(UserError):
    """The loss is not a number any more."""


@dataclass(frozen=True)
class Images:
    """Rows of an array of `uint8` pixels, or of features, with what is known of them: targets and weights of shape (rows,).

    Where there are `views`, epoch n trains on view n modulo their number, which holds `rows` alone, in order.
    """

    pixels: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    views: tuple[np.ndarray, ...] = ()


def use_threads(threads: int) -> None:
    """Fix the threads of one operation, and let a GPU's memory grow. Call before TensorFlow computes anything."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)


def fit(
    model: keras.Model,
    training: Images,
    validation: Images,
    params: Train,
    checkpoint: Path,
    key: str,
    on_epoch: Callable[[Row], None],
    before: Sequence[Row] = (),
    measure: Measure | None = None,
) -> list[Row]:
    """Train `model` in place to the epoch that `params.keep` names; return one row per epoch.

    A row has `epoch, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds`; the training loss is weighted,
    the validation loss is not. A `checkpoint` of the same `key` is resumed. `before` is the history that led to the
    weights that `model` has: an epoch must be better than all of it, else they come back. `measure` adds to each row what
    it makes of the answers to `validation`. Raises `DivergedError` when the loss is not a number any more.
    """
    _compile(model, params, math.ceil(len(training.rows) / params.batch_size))
    callbacks = _callbacks(params, checkpoint.stem)
    group = keras.callbacks.CallbackList(callbacks, model=model)
    group.on_train_begin()
    kept = None
    if before and params.keep == "best":
        kept, callbacks[0].best = (
            model.get_weights(),
            before[select_epoch(before, params)][params.monitor],
        )
    history, kept = _restore(checkpoint, key, model, callbacks, kept)
    for epoch in range(len(history), params.epochs):
        if model.stop_training:
            break
        row = _epoch(model, training, validation, params, epoch)
        if measure is not None:
            row |= measure(validation.targets, predict(model, validation))
        group.on_epoch_end(epoch, dict(row))
        history.append(row)
        every = [*before, *history]
        if params.keep == "best" and select_epoch(every, params) == len(every) - 1:
            kept = model.get_weights()
        _save(checkpoint, key, model, callbacks, history, kept)
        on_epoch(row)
    group.on_train_end()
    if kept is not None:
        model.set_weights(kept)
    return history


def predict(model: keras.Model, images: Images) -> np.ndarray:
    """Return probabilities of shape (rows, classes)."""
    return model.predict(_batches(images, PREDICT_BATCH), verbose=0)


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
    loss = "categorical_crossentropy" if _blends(params) else "sparse_categorical_crossentropy"
    # XLA is slower on CPUs, and not bit-equal to other compilations.
    model.compile(optimizer, loss, weighted_metrics=[], metrics=["accuracy"], jit_compile=False)


def _callbacks(params: Train, name: str) -> list[keras.callbacks.Callback]:
    stopping = params.early_stopping
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.EarlyStopping(
            params.monitor, patience=stopping.patience if stopping else params.epochs
        )
    ]
    schedule = params.schedule
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


def _epoch(
    model: keras.Model, training: Images, validation: Images, params: Train, epoch: int
) -> Row:
    start = time.perf_counter()
    rate = float(model.optimizer.learning_rate)
    classes, unchanged = model.output_shape[-1], _batches(validation, PREDICT_BATCH)
    logs = model.fit(
        _training_batches(training, params, epoch, classes),
        validation_data=_one_hot(unchanged, classes) if _blends(params) else unchanged,
        initial_epoch=epoch,
        epochs=epoch + 1,
        verbose=0,
    ).history
    row = (
        {"epoch": epoch + 1}
        | {name: values[0] for name, values in logs.items()}
        | {"learning_rate": rate}
    )
    if not all(math.isfinite(value) for value in row.values()):
        raise DivergedError(
            f"epoch {epoch + 1}: the loss is {row['loss']}, the validation loss {row['val_loss']}: the training has diverged. "
            f"Lower learning_rate ({params.learning_rate:g}) in params.yaml."
        )
    return row | {"seconds": time.perf_counter() - start}


def _blends(params: Train) -> bool:
    return params.augmentation is not None and params.augmentation.mixup is not None


def _training_batches(images: Images, params: Train, epoch: int, classes: int) -> tf.data.Dataset:
    """Batches of (pixels, targets, weights) in the order, and with the changes, of this seed and epoch."""
    count = len(images.rows)
    order = np.random.default_rng([params.seed, epoch, 1]).permutation(count)
    changes = params.augmentation
    if changes is None:
        view = images.views[epoch % len(images.views)] if images.views else None
        return _batches(images, params.batch_size, order, view)
    drawn = augmentation.draw(changes, params.seed, epoch, count, images.pixels.shape[1:3])
    shares = augmentation.draw_shares(changes, params.seed, epoch, count)

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        for start in range(0, count, params.batch_size):
            chosen = order[start : start + params.batch_size]
            pixels = images.pixels[images.rows[chosen]]
            yield (
                pixels,
                images.targets[chosen],
                images.weights[chosen],
                shares[chosen],
                *(array[chosen] for array in drawn),
            )

    def change(
        pixels: tf.Tensor,
        targets: tf.Tensor,
        weights: tf.Tensor,
        shares: tf.Tensor,
        *drawn: tf.Tensor,
    ) -> tuple:
        pixels = augmentation.apply(pixels, *drawn, changes.fill)
        return (
            augmentation.mix(pixels, targets, weights, shares, classes)
            if _blends(params)
            else (pixels, targets, weights)
        )

    signature = (
        *_signature(images.pixels),
        *(tf.TensorSpec((None, *array.shape[1:])) for array in (shares, *drawn)),
    )
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature).map(change)
    return dataset.apply(_counted(count, params.batch_size)).prefetch(2)


def _batches(
    images: Images, size: int, order: np.ndarray | None = None, view: np.ndarray | None = None
) -> tf.data.Dataset:
    """Batches of (pixels, targets, weights) in the order given; in their own, of (pixels, targets)."""
    source = images.pixels if view is None else view
    wanted = np.arange(len(images.rows)) if order is None else order
    parts = 2 if order is None else 3

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        for start in range(0, len(wanted), size):
            chosen = wanted[start : start + size]
            rows = images.rows[chosen] if view is None else chosen
            yield (source[rows], images.targets[chosen], images.weights[chosen])[:parts]

    dataset = tf.data.Dataset.from_generator(batches, output_signature=_signature(source)[:parts])
    return dataset.apply(_counted(len(wanted), size)).prefetch(2)


def _one_hot(dataset: tf.data.Dataset, classes: int) -> tf.data.Dataset:
    return dataset.map(lambda pixels, targets: (pixels, tf.one_hot(targets, classes)))


def _counted(count: int, size: int) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Say how many batches there are: else Keras asks for one more, and a step without images counts for the optimizer."""
    return tf.data.experimental.assert_cardinality(math.ceil(count / size))


def _signature(pixels: np.ndarray) -> tuple[tf.TensorSpec, ...]:
    inputs = tf.TensorSpec((None, *pixels.shape[1:]), pixels.dtype)
    return inputs, tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None,), tf.float32)


def _save(
    file: Path,
    key: str,
    model: keras.Model,
    callbacks: list,
    history: list[Row],
    kept: Sequence[np.ndarray] | None,
) -> None:
    memory = [
        {name: getattr(callback, name) for name in MEMORY.get(type(callback).__name__, ())}
        for callback in callbacks
    ]
    state = {"key": key, "history": history, "memory": memory, "stopped": bool(model.stop_training)}
    arrays = {f"variable_{i}": np.asarray(variable) for i, variable in enumerate(_variables(model))}
    arrays |= {f"best_{i}": weights for i, weights in enumerate(kept or ())}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    try:
        with part.open("wb") as target:
            np.savez(target, state=json.dumps(state, default=float), **arrays)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _restore(
    file: Path, key: str, model: keras.Model, callbacks: list, kept: list[np.ndarray] | None
) -> tuple[list[Row], list[np.ndarray] | None]:
    """Return the history of a checkpoint, and the weights that were kept by then; none, and `kept`, where it is not this one's."""
    try:
        saved = np.load(file, allow_pickle=False)
        state = json.loads(str(saved["state"]))
    except FileNotFoundError:
        return [], kept
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError):
        log.info("%s is damaged, starting over", file)
        return [], kept
    if state["key"] != key:
        return [], kept
    for i, variable in enumerate(_variables(model)):
        variable.assign(saved[f"variable_{i}"])
    for callback, memory in zip(
        callbacks, state["memory"], strict=False
    ):  # TensorBoard may have come or gone
        for name, value in memory.items():
            setattr(callback, name, value)
    model.stop_training = state["stopped"]
    log.info("resuming after epoch %d", len(state["history"]))
    return state["history"], [
        saved[f"best_{i}"] for i in range(len(model.weights)) if f"best_{i}" in saved
    ] or None


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]
