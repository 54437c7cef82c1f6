"""Time the training of a pretrained backbone: cached features against the whole network per epoch.

There are two settings, both with Adam and a batch of 32. The convolutions are random: weights do
not change the time. The batch normalisation has seen noise: otherwise rounding errors grow.

- `resnet50`: a frozen ResNet50 with the head of the reference comparison, 224 x 224.
- `vgg16`: VGG16, whose last three convolutions are trained, 128 x 128.

The usual way reads the folder with the classic generator, and runs the whole network on every image
in every epoch, as `model.fit` does. Ours is `tasks.modeling.transfer.fit_transfer`, from the same
files to the trained model, with an empty cache. Both train the same epochs of the same batches,
with unchanged images and no dropout, so their losses must be equal. XLA is off on both sides. Each
side runs in its own process and reports its peak memory.

    python -m bench.transfer                             # both settings, 400 + 80 images, 15 epochs
    python -m bench.transfer vgg16 --precision bfloat16  # half precision; losses differ a little
    python -m bench.transfer resnet50 --views 2          # two augmented copies of each image
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

# Keras 3 has no public name for these.
from keras.src.legacy.preprocessing.image import DirectoryIterator, ImageDataGenerator

from bench.train_step import CHANGES, CLASSIC
from tasks.imaging.arrays import load_pixels
from tasks.modeling import backbones
from tasks.modeling.checkpoints import Checkpoint
from tasks.modeling.images import Images, Sets
from tasks.modeling.training import Job, Watch, use_threads
from tasks.modeling.transfer import fit_transfer
from tasks.params.architectures import ARCHITECTURES, Transfer
from tasks.params.model_input import Form
from tasks.params.train import Schedule, Train
from tests.support.draw import LABELS, draw_set

SEED, BATCH, RATE = 42, 32, 1e-4
SIZES = {"resnet50": 224, "vgg16": 128}
WEIGHTS = "backbone.weights.h5"


def main() -> None:
    """Print a comparison for each setting; `--side` runs one side in this process."""
    arguments = _arguments()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments)))
        return
    for setting in [arguments.setting] if arguments.setting else list(SIZES):
        with tempfile.TemporaryDirectory() as folder:
            _draw(Path(folder, "heads"), arguments, SIZES[setting])
            _in_a_process("weights", setting, folder)
            sides = {side: _in_a_process(side, setting, folder) for side in ("original", "ours")}
        _print_comparison(setting, arguments, sides)


def originally(arguments: argparse.Namespace) -> dict[str, object]:
    """Train the whole network on the folder, as the usual notebook does."""
    augmentation = CLASSIC if arguments.views else {}
    flow = _flow(ImageDataGenerator(**augmentation), Path("heads/training"), arguments)
    model = _model(arguments)
    model.compile(
        keras.optimizers.Adam(RATE),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    start = time.perf_counter()
    validation = _flow(ImageDataGenerator(), Path("heads/validation"), arguments)
    batches = _in_our_order(flow)
    follow = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(batches, "epoch", epoch)
    )
    history = model.fit(
        batches,
        validation_data=validation,
        epochs=arguments.epochs,
        verbose=0,
        shuffle=False,
        callbacks=[follow],
    ).history
    return _facts(start, history["loss"], history["val_loss"])


def ours(arguments: argparse.Namespace) -> dict[str, object]:
    """Train on the features of the frozen layers."""
    use_threads(os.cpu_count() or 1)
    size = SIZES[arguments.setting]
    params = Train(
        seed=SEED,
        image_size=(size, size),
        batch_size=BATCH,
        epochs=arguments.epochs,
        learning_rate=RATE,
        early_stopping=None,
        schedule=Schedule(kind="constant"),
        augmentation=CHANGES if arguments.views else None,
    )
    keras.utils.set_random_seed(SEED)
    structure = _structure(arguments).model_copy(
        update={"precision": arguments.precision, "views": arguments.views or 1}
    )
    start = time.perf_counter()
    sets = _images(size)
    checkpoint, watch = Checkpoint(Path("checkpoint.npz"), "bench"), Watch(lambda *_: None)
    fitted = fit_transfer(Job(structure, params, sets, 4, checkpoint, watch))
    losses = ([row[name] for row in fitted.history] for name in ("loss", "val_loss"))
    return _facts(start, *losses) | {"features": fitted.feature_seconds}


def write_weights(arguments: argparse.Namespace) -> dict[str, object]:
    """Write the initial weights of both sides."""
    keras.utils.set_random_seed(SEED)
    size = SIZES[arguments.setting]
    model = getattr(keras.applications, _structure(arguments).backbone)(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(SEED).normal(0, 60, (16, size, size, 3)), training=True)
    model.save_weights(WEIGHTS)
    return {}


SIDES = {"original": originally, "ours": ours, "weights": write_weights}


def _structure(arguments: argparse.Namespace) -> Transfer:
    """Return the architecture without dropout, whose random draws would make the losses differ."""
    row = ARCHITECTURES[{"resnet50": "resnet50", "vgg16": "vgg16_finetuned"}[arguments.setting]]
    assert isinstance(row, Transfer)
    dense = tuple(layer.model_copy(update={"dropout": 0.0}) for layer in row.head.dense)
    return row.model_copy(
        update={
            "weights": WEIGHTS,
            "head": row.head.model_copy(update={"dropout": 0.0, "dense": dense}),
        }
    )


def _model(arguments: argparse.Namespace) -> keras.Model:
    structure, size = _structure(arguments), SIZES[arguments.setting]
    keras.utils.set_random_seed(SEED)
    model = backbones.build_transfer(structure, (size, size, 3), 4)
    backbones.load_weights(model, structure, (size, size))
    backbones.freeze(model, backbones.find_layer(model, structure.trainable_from))
    return model


def _flow(
    generator: ImageDataGenerator, folder: Path, arguments: argparse.Namespace
) -> DirectoryIterator:
    size = SIZES[arguments.setting]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the number of images
        return generator.flow_from_directory(
            folder, target_size=(size, size), class_mode="sparse", batch_size=BATCH, shuffle=False
        )


def _in_our_order(flow: DirectoryIterator) -> keras.utils.PyDataset:
    """Return the generator's batches, with the images of our batches of each epoch."""

    class Batches(keras.utils.PyDataset):
        epoch = 0

        def __len__(self) -> int:
            return len(flow)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            order = np.random.default_rng([SEED, self.epoch, 1]).permutation(flow.n)
            return flow._get_batches_of_transformed_samples(
                order[index * BATCH : (index + 1) * BATCH]
            )

    return Batches()


def _images(size: int) -> Sets:
    """Return all images and the rows of each split, in the generator's order."""
    paths = [
        path
        for part in ("training", "validation")
        for path in sorted(Path("heads", part).glob("*/*"))
    ]
    labels = sorted({path.parent.name for path in paths})
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    targets = np.array([labels.index(path.parent.name) for path in paths], np.int32)
    pixels = load_pixels(Path(), list(map(str, paths)), hashes, Form((size, size), 3))
    every = Images(pixels, np.arange(len(paths)), targets, np.ones(len(paths), np.float32))
    trains = np.array([path.parts[1] == "training" for path in paths])
    parts = (np.flatnonzero(trains), np.flatnonzero(~trains))
    return Sets(
        every,
        *(
            replace(every, rows=rows, targets=targets[rows], weights=every.weights[rows])
            for rows in parts
        ),
    )


def _draw(root: Path, arguments: argparse.Namespace, size: int) -> None:
    counts = {
        "training": arguments.images // len(LABELS),
        "validation": arguments.images // 5 // len(LABELS),
    }
    draw_set(
        root, {part: dict.fromkeys(LABELS, count) for part, count in counts.items()}, SEED, size
    )


def _in_a_process(side: str, setting: str, folder: str) -> dict[str, object]:
    given = [word for word in sys.argv[1:] if word not in SIZES]
    command = [sys.executable, "-m", "bench.transfer", setting, *given, "--side", side]
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _facts(start: float, losses: list[float], val_losses: list[float]) -> dict[str, object]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.perf_counter() - start, "peak": peak, "losses": [*losses, *val_losses]}


def _print_comparison(setting: str, arguments: argparse.Namespace, sides: dict[str, dict]) -> None:
    size, first, second = SIZES[setting], sides["original"], sides["ours"]
    views = f", {arguments.views} augmented views" if arguments.views else ", unchanged images"
    print(f"\n{setting}, {size} x {size} x 3, {arguments.images} images", end=", ")
    print(f"{arguments.epochs} epochs{views}, {arguments.precision}")
    print(f"  original  {first['seconds']:8.1f} s  peak {first['peak']:6.0f} MB")
    print(f"  ours      {second['seconds']:8.1f} s  peak {second['peak']:6.0f} MB", end="  ")
    print(f"(features {second['features']:.1f} s)")
    print(f"  ratio     {first['seconds'] / second['seconds']:8.1f}")
    if not arguments.views:
        apart = np.abs(np.array(first["losses"]) - np.array(second["losses"])) / np.abs(
            first["losses"]
        )
        print(
            f"  largest relative difference of a loss, training and validation: {apart.max():.2g}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare transfer learning with the original way.")
    parser.add_argument("setting", nargs="?", choices=list(SIZES), help="default: both")
    parser.add_argument(
        "--images", type=int, default=400, help="training images (400); a fifth more for validation"
    )
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="precision of our side",
    )
    parser.add_argument(
        "--views",
        type=int,
        default=0,
        help="augmented copies of each image on our side (0: no augmentation)",
    )
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
