"""Time our batch normalisation, augmentation and input against those of the usual notebook.

The three parts run in turns in one process, with TensorFlow's default threads. XLA is off on every
side: Keras would turn it on, and it slows training on a CPU.

- `step`: one training step of the fused model against the model of plain Keras layers, on the same
  batches of noise in memory. The output has the largest difference of a probability with equal
  weights.
- `augmentation`: images per second of our fused affine transform, the classic `ImageDataGenerator`
  and a chain of Keras layers, from pixels in memory, with equal settings. The classic generator
  also stretches the brightness of each image to the full range, and the layer adds brightness where
  the others multiply. The layers may augment several batches at once, ours augments one, as in
  training. Tracing is not timed.
- `epoch`: one epoch with its validation: the plain model with the classic generator on a folder,
  against `tasks.modeling.training.fit` on decoded arrays. Both train two epochs, and the second one
  counts. Only our side writes a checkpoint. The files are decoded before, in a time that is
  printed. They have the size of the model's input, so neither side resizes them.

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
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

# Keras 3 has no public name for these.
from keras.src.legacy.preprocessing.image import DirectoryIterator, ImageDataGenerator

from bench.rounds import print_table, stopwatch, time_rounds
from tasks.imaging import augmentation
from tasks.imaging.arrays import load_pixels
from tasks.modeling.checkpoints import Checkpoint
from tasks.modeling.images import Images, Sets
from tasks.modeling.layers import build_model
from tasks.modeling.training import Session, Watch, fit
from tasks.params.architectures import ARCHITECTURES, Cnn
from tasks.params.augmentation import Augmentation
from tasks.params.model_input import Form
from tasks.params.train import Train
from tests.support.draw import LABELS, draw_set

CNNS = [name for name, structure in ARCHITECTURES.items() if isinstance(structure, Cnn)]
SEED = 42
LEARNING_RATE = 1e-4
# The seven augmentations of the reference comparison, in our parameters and in those of the classic
# generator. Both give shear in degrees.
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
    """Run the parts that the command line names, or all."""
    arguments = _arguments()
    warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
    for part in arguments.parts or PARTS:
        PARTS[part](arguments)


def compare_steps(arguments: argparse.Namespace) -> None:
    """Time training steps of the fused and the plain model, and compare their probabilities."""
    models = {
        "ours: fused": _compiled(arguments, fused=True),
        "plain Keras layers": _compiled(arguments, fused=False),
    }
    pixels, labels = _noise(arguments.batch, arguments.size, arguments.channels)
    sides = {
        name: stopwatch(partial(_train, model, pixels, labels, arguments.steps))
        for name, model in models.items()
    }
    seconds = time_rounds(sides, arguments.rounds)
    count = arguments.steps * arguments.batch
    print_table(f"{_describe(arguments)}: training step", seconds, count, "images")
    fused, plain = models.values()
    plain.set_weights(fused.get_weights())
    difference = np.abs(fused.predict_on_batch(pixels) - plain.predict_on_batch(pixels)).max()
    print(f"  largest difference of a probability with equal weights: {difference:.2g}")


def compare_augmentations(arguments: argparse.Namespace) -> None:
    """Time the three ways of augmentation, for grey images and for colours."""
    for channels in (1, 3):
        pixels, _ = _noise(arguments.steps * arguments.batch, arguments.size, channels)
        ways = {
            "ours: fused affine": _fused_affine(pixels, arguments.batch),
            "classic generator": _classic_generator(pixels, arguments.batch),
            "chain of Keras layers": _chain_of_layers(pixels, arguments.batch),
        }
        sides = {name: stopwatch(way) for name, way in ways.items()}
        seconds = time_rounds(sides, arguments.rounds)
        print_table(
            f"augmentation of {_shape(arguments.size, channels)}", seconds, len(pixels), "images"
        )


def compare_epochs(arguments: argparse.Namespace) -> None:
    """Time a whole epoch from a folder of files to an updated model."""
    count = arguments.steps * arguments.batch
    # Our caches are in the temporary folder too.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        root = Path("heads")
        per_class = {
            "training": math.ceil(count / len(LABELS)),
            "validation": math.ceil(count / len(LABELS) / 4),
        }
        counts = {part: dict.fromkeys(LABELS, number) for part, number in per_class.items()}
        draw_set(root, counts, SEED, arguments.size)
        start = time.perf_counter()
        images = {part: _load(root / part, arguments) for part in per_class}
        decoding = time.perf_counter() - start
        sides = {
            "ours: fit on decoded arrays": lambda: _second_epoch(
                lambda on_epoch: _train_ours(images, arguments, on_epoch)
            ),
            "classic generator from folder": lambda: _second_epoch(
                lambda on_epoch: _train_originally(root, arguments, on_epoch)
            ),
        }
        seconds = time_rounds(sides, arguments.rounds)
    count = len(images["training"].rows)
    print_table(f"{_describe(arguments)}: epoch with validation", seconds, count, "images")
    print(f"  ours decodes all files once before the first epoch: {decoding:.2f} s")


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
    assert isinstance(structure, Cnn)
    shape = (arguments.size, arguments.size, arguments.channels)
    return build_model(structure, shape, len(LABELS), fused=fused)


def _noise(count: int, size: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    pixels = rng.integers(0, 256, (count, size, size, channels), np.uint8)
    return pixels, rng.integers(0, len(LABELS), count)


def _train(model: keras.Model, pixels: np.ndarray, labels: np.ndarray, steps: int) -> None:
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
        tf.TensorSpec((None, 3)),
        tf.TensorSpec((None, 0, 0, 2)),
    )
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return _consume(dataset.map(partial(augmentation.apply, fill=CHANGES.fill)).prefetch(2))


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
    images: Mapping[str, Images], arguments: argparse.Namespace, on_epoch: Callable[..., None]
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
    fit(_model(arguments, fused=True), sets, Session(params, checkpoint, Watch(on_epoch)))
    checkpoint.file.unlink()


def _train_originally(
    root: Path, arguments: argparse.Namespace, on_epoch: Callable[..., None]
) -> None:
    callbacks = keras.callbacks
    _compiled(arguments, fused=False).fit(
        _flow(ImageDataGenerator(**CLASSIC), root / "training", arguments),
        validation_data=_flow(ImageDataGenerator(), root / "validation", arguments),
        epochs=2,
        class_weight=dict.fromkeys(range(len(LABELS)), 1.0),
        callbacks=[
            callbacks.EarlyStopping("val_loss", patience=5, restore_best_weights=True),
            callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=3),
            callbacks.LambdaCallback(on_epoch_end=on_epoch),
        ],
        verbose=0,
    )


def _flow(
    generator: ImageDataGenerator, folder: Path, arguments: argparse.Namespace
) -> DirectoryIterator:
    """Yield batches of 0 to 255: the scaling is a layer of the model on both sides."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the number of images
        return generator.flow_from_directory(
            folder,
            target_size=(arguments.size, arguments.size),
            color_mode={1: "grayscale", 3: "rgb"}[arguments.channels],
            class_mode="sparse",
            batch_size=arguments.batch,
            seed=SEED,
        )


def _describe(arguments: argparse.Namespace) -> str:
    shape = _shape(arguments.size, arguments.channels)
    return f"{arguments.architecture}, {shape}, batch {arguments.batch}"


def _shape(size: int, channels: int) -> str:
    return f"{size} x {size} x {channels}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare our training with the training of the usual notebook."
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"parts to run (default: {', '.join(PARTS)})"
    )
    parser.add_argument("--architecture", choices=CNNS, default="cnn_a")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (224)")
    parser.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        default=3,
        help="channels of steps and epochs (3); augmentation runs both",
    )
    parser.add_argument("--batch", type=int, default=32, help="images of a batch (32)")
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
