"""How fast a network trains: our batch normalisation, augmentation and input against the original way of doing it.

Three parts, each timed in turns in one process, with TensorFlow's default threads and without XLA on every side (Keras
would switch XLA on by itself, which slows training on a CPU):

- `step`: one training step of the fused model against the same model of plain Keras layers, on the same batches of noise,
  which lie in memory. Afterwards the largest difference between the outputs of both with equal weights, at inference.
- `augmentation`: images per second through our fused affine transform, the classic `ImageDataGenerator` and a chain of
  Keras layers, from pixels in memory, with equal settings. The classic generator also stretches each image to the full
  range of brightness, and the layer adds brightness where the others multiply. The layers may work on several batches
  at once, ours on one, as in training; tracing is not timed.
- `epoch`: a whole epoch with its validation, in images trained per second: the classic generator reading a folder and
  the plain model, against `tasks.modeling.training.fit` on decoded arrays. Both train two epochs and the second counts.
  Ours includes writing its checkpoint, the original has none; decoding the files once beforehand is told apart. The
  files have the size of the model's input and are small, so the original need not resize.

    python -m bench.train_step                                   # all parts, cnn_a, 224 x 224
    python -m bench.train_step step --architecture cnn_c
"""

import argparse
import contextlib
import hashlib
import io
import itertools
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras.src.legacy.preprocessing.image import (
    DirectoryIterator,
    ImageDataGenerator,
)  # no public name in Keras 3

from bench.rounds import stopwatch, tell, time_rounds
from tasks.imaging import augmentation
from tasks.imaging.arrays import load_pixels
from tasks.modeling.checkpoints import Checkpoint
from tasks.modeling.images import Images, Sets
from tasks.modeling.layers import build_model
from tasks.modeling.training import Session, Watch, fit
from tasks.params.architectures import ARCHITECTURES
from tasks.params.augmentation import Augmentation
from tasks.params.model_input import Form
from tasks.params.train import Train
from tests.support.draw import LABELS, draw_set

SEED = 42
LEARNING_RATE = 1e-4
# The reference comparison's seven changes, in our words and in the classic generator's. Shear is in degrees in both.
CHANGES = Augmentation.model_validate("comparison")
CLASSIC = {
    "rotation_range": 20,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.15,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "brightness_range": (0.8, 1.2),
    "fill_mode": "nearest",
}


def main() -> None:
    arguments = _arguments()
    warnings.filterwarnings(
        "ignore", "`shuffle=True` was passed", UserWarning
    )  # Keras says so of every data set
    for part in arguments.parts or PARTS:
        PARTS[part](arguments)


def compare_steps(arguments: argparse.Namespace) -> None:
    """Time training steps of the fused and the plain model, then compare their outputs."""
    models = {
        "ours: fused": _compiled(arguments, fused=True),
        "plain Keras layers": _compiled(arguments, fused=False),
    }
    pixels, labels = _noise(arguments.batch, arguments.size, arguments.channels)
    sides = {
        name: stopwatch(lambda model=model: _steps(model, pixels, labels, arguments.steps))
        for name, model in models.items()
    }
    seconds = time_rounds(sides, arguments.rounds)
    tell(
        f"{_setting(arguments)}: training step",
        seconds,
        arguments.steps * arguments.batch,
        "images",
    )
    fused, plain = models.values()
    plain.set_weights(fused.get_weights())
    difference = np.abs(fused.predict_on_batch(pixels) - plain.predict_on_batch(pixels)).max()
    print(f"  largest difference of a probability at inference, weights equal: {difference:.2g}")


def compare_augmentations(arguments: argparse.Namespace) -> None:
    """Time the three ways of changing images, grey and in colours."""
    for channels in (1, 3):
        pixels, _ = _noise(arguments.steps * arguments.batch, arguments.size, channels)
        ways = {
            "ours: fused affine": _fused_affine(pixels, arguments.batch),
            "classic generator": _classic_generator(pixels, arguments.batch),
            "chain of Keras layers": _chain_of_layers(pixels, arguments.batch),
        }
        seconds = time_rounds(
            {name: stopwatch(way) for name, way in ways.items()}, arguments.rounds
        )
        tell(f"augmentation of {_shape(arguments.size, channels)}", seconds, len(pixels), "images")


def compare_epochs(arguments: argparse.Namespace) -> None:
    """Time a whole epoch from a folder of files to an updated model."""
    count = arguments.steps * arguments.batch
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):  # our caches go there too
        root = Path("heads")
        per_class = {
            "training": math.ceil(count / len(LABELS)),
            "validation": math.ceil(count / len(LABELS) / 4),
        }
        draw_set(
            root,
            {part: dict.fromkeys(LABELS, number) for part, number in per_class.items()},
            SEED,
            arguments.size,
        )
        start = time.perf_counter()
        images = {part: _load(root / part, arguments) for part in per_class}
        decoding = time.perf_counter() - start
        sides = {
            "ours: fit on decoded arrays": lambda: _second_epoch(
                lambda told: _train_ours(images, arguments, told)
            ),
            "classic generator from folder": lambda: _second_epoch(
                lambda told: _train_originally(root, arguments, told)
            ),
        }
        seconds = time_rounds(sides, arguments.rounds)
    tell(
        f"{_setting(arguments)}: epoch with validation",
        seconds,
        len(images["training"].rows),
        "images",
    )
    print(f"  before the first epoch ours decodes all files once: {decoding:.2f} s")


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "step": compare_steps,
    "augmentation": compare_augmentations,
    "epoch": compare_epochs,
}


def _compiled(arguments: argparse.Namespace, fused: bool) -> keras.Model:
    model = _model(arguments, fused)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def _model(arguments: argparse.Namespace, fused: bool) -> keras.Model:
    keras.utils.set_random_seed(SEED)
    structure = ARCHITECTURES[arguments.architecture]
    return build_model(
        structure, (arguments.size, arguments.size, arguments.channels), len(LABELS), fused=fused
    )


def _noise(count: int, size: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    return rng.integers(0, 256, (count, size, size, channels), np.uint8), rng.integers(
        0, len(LABELS), count
    )


def _steps(model: keras.Model, pixels: np.ndarray, labels: np.ndarray, steps: int) -> None:
    for _ in range(steps):
        model.train_on_batch(pixels, labels)


def _fused_affine(pixels: np.ndarray, batch: int) -> Callable[[], None]:
    epochs = itertools.count()

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        drawn = augmentation.draw(CHANGES, SEED, next(epochs), len(pixels), pixels.shape[1:3])
        for start in range(0, len(pixels), batch):
            chosen = slice(start, start + batch)
            yield pixels[chosen], *(array[chosen] for array in drawn)

    signature = (
        tf.TensorSpec((None, *pixels.shape[1:]), tf.uint8),
        tf.TensorSpec((None, 8)),
        tf.TensorSpec((None,)),
        tf.TensorSpec((None, 0, 0, 2)),
    )
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return _consume(
        dataset.map(lambda *drawn: augmentation.apply(*drawn, CHANGES.fill)).prefetch(2)
    )


def _classic_generator(pixels: np.ndarray, batch: int) -> Callable[[], None]:
    batches = ImageDataGenerator(**CLASSIC).flow(pixels, batch_size=batch, shuffle=False)

    def consume() -> None:
        for index in range(len(batches)):
            batches[index]

    return consume


def _chain_of_layers(pixels: np.ndarray, batch: int) -> Callable[[], None]:
    layers = keras.layers
    chain = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(20 / 360, fill_mode="nearest"),
            layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
            layers.RandomShear(x_factor=math.tan(math.radians(0.15)), fill_mode="nearest"),
            layers.RandomZoom(0.2, 0.2, fill_mode="nearest"),
            layers.RandomBrightness(0.2, value_range=(0, 255)),
        ]
    )
    dataset = tf.data.Dataset.from_tensor_slices(pixels).batch(batch)
    return _consume(
        dataset.map(
            lambda images: chain(images, training=True), num_parallel_calls=tf.data.AUTOTUNE
        ).prefetch(2)
    )


def _consume(dataset: tf.data.Dataset) -> Callable[[], None]:
    def consume() -> None:
        for _ in dataset:
            pass

    return consume


def _load(folder: Path, arguments: argparse.Namespace) -> Images:
    paths = sorted(folder.glob("*/*.jpg"))
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Images(
        pixels=load_pixels(
            folder, names, hashes, Form((arguments.size, arguments.size), arguments.channels)
        ),
        rows=np.arange(len(paths)),
        targets=np.array([LABELS.index(path.parent.name) for path in paths], np.int32),
        weights=np.ones(len(paths), np.float32),
    )


def _second_epoch(train: Callable[[Callable[..., None]], object]) -> float:
    """Return the seconds from the end of the first epoch to the end of the second."""
    ends: list[float] = []
    train(lambda *_: ends.append(time.perf_counter()))
    return ends[1] - ends[0]


def _train_ours(
    images: Mapping[str, Images], arguments: argparse.Namespace, told: Callable[..., None]
) -> None:
    params = Train(
        image_size=(arguments.size, arguments.size),
        channels=arguments.channels,
        batch_size=arguments.batch,
        epochs=2,
        learning_rate=LEARNING_RATE,
        augmentation=CHANGES,
    )
    checkpoint = Checkpoint(Path("checkpoint.npz"), "bench")
    sets = Sets(images["training"], images["training"], images["validation"])
    fit(_model(arguments, fused=True), sets, Session(params, checkpoint, Watch(told)))
    checkpoint.file.unlink()


def _train_originally(root: Path, arguments: argparse.Namespace, told: Callable[..., None]) -> None:
    callbacks = keras.callbacks
    _compiled(arguments, fused=False).fit(
        _flow(ImageDataGenerator(**CLASSIC), root / "training", arguments),
        validation_data=_flow(ImageDataGenerator(), root / "validation", arguments),
        epochs=2,
        class_weight=dict.fromkeys(range(len(LABELS)), 1.0),
        callbacks=[
            callbacks.EarlyStopping("val_loss", patience=5, restore_best_weights=True),
            callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=3),
            callbacks.LambdaCallback(on_epoch_end=told),
        ],
        verbose=0,
    )


def _flow(
    generator: ImageDataGenerator, folder: Path, arguments: argparse.Namespace
) -> DirectoryIterator:
    """Batches of 0 to 255: the scaling is a layer of the model on both sides."""
    with contextlib.redirect_stdout(io.StringIO()):  # it tells the number of images each time
        return generator.flow_from_directory(
            folder,
            target_size=(arguments.size, arguments.size),
            color_mode={1: "grayscale", 3: "rgb"}[arguments.channels],
            class_mode="sparse",
            batch_size=arguments.batch,
            seed=SEED,
        )


def _setting(arguments: argparse.Namespace) -> str:
    return f"{arguments.architecture}, {_shape(arguments.size, arguments.channels)}, batch {arguments.batch}"


def _shape(size: int, channels: int) -> str:
    return f"{size} x {size} x {channels}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare our training with the original way.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"which to run, all by default: {', '.join(PARTS)}"
    )
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), default="cnn_a")
    parser.add_argument(
        "--size", type=int, default=224, help="pixels of a side of the images (224)"
    )
    parser.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        default=3,
        help="of steps and epochs; augmentation takes both (3)",
    )
    parser.add_argument("--batch", type=int, default=32, help="images of a step (32)")
    parser.add_argument(
        "--steps", type=int, default=8, help="steps of one round, for every part (8)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each side (5)")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(
            f"expected parts out of {', '.join(PARTS)}, received {', '.join(sorted(unknown))}"
        )
    return arguments


if __name__ == "__main__":
    main()
