"""How fast a pretrained backbone is trained: frozen features computed once against the whole network in every epoch.

Two settings, each with random convolutions and the batch normalisation of noise (weights do not change the time, but in
a network without life rounding errors would grow), Adam and a batch of 32:

- `resnet50`: ResNet50 frozen under the reference comparison's head, 224 x 224.
- `vgg16`: VGG16 with its last three convolutions trained, 128 x 128.

The original way reads the folder of files with the classic generator and runs the whole network on every image of every
epoch, as `model.fit` does; ours is `tasks.modeling.transfer.fit_transfer`, from the same files to the trained model,
features included, with an empty cache. Both train equal epochs with equal batches in equal order, unchanged images and
no dropout, so that their losses must be equal; XLA is off on both sides. Each side runs in a process of its own, which
tells its peak memory.

    python -m bench.transfer                               # both, 400 + 80 drawn images, 15 epochs, ours in float32
    python -m bench.transfer vgg16 --precision bfloat16    # half precision for what is trained; losses then differ a little
    python -m bench.transfer resnet50 --views 2            # ours on two augmented copies, the original on fresh ones
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
from keras.src.legacy.preprocessing.image import (
    DirectoryIterator,
    ImageDataGenerator,
)  # no public name in Keras 3

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
    arguments = _arguments()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments)))
        return
    for setting in [arguments.setting] if arguments.setting else list(SIZES):
        with tempfile.TemporaryDirectory() as folder:
            _draw(Path(folder, "heads"), arguments, SIZES[setting])
            _in_a_process("weights", setting, folder)
            sides = {side: _in_a_process(side, setting, folder) for side in ("original", "ours")}
        _tell(setting, arguments, sides)


def originally(arguments: argparse.Namespace) -> dict[str, object]:
    """Train the whole network on the folder, as the original notebooks did."""
    changes = CLASSIC if arguments.views else {}
    flow = _flow(ImageDataGenerator(**changes), Path("heads/training"), arguments)
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
    """Train on what the frozen part makes of the images."""
    use_threads(os.cpu_count() or 1)
    size = SIZES[arguments.setting]
    params = Train(
        seed=SEED, image_size=(size, size), batch_size=BATCH, epochs=arguments.epochs, learning_rate=RATE, early_stopping=None,
        schedule=Schedule(kind="constant"), augmentation=CHANGES if arguments.views else None,
    )  # fmt: skip
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


def pretend(arguments: argparse.Namespace) -> dict[str, object]:
    """Write the weights that both sides begin with."""
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


SIDES = {"original": originally, "ours": ours, "weights": pretend}


def _structure(arguments: argparse.Namespace) -> Transfer:
    """Return the row of the table without its dropout, whose draws would tell the losses apart."""
    row = ARCHITECTURES[{"resnet50": "resnet50", "vgg16": "vgg16_finetuned"}[arguments.setting]]
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
    with contextlib.redirect_stdout(io.StringIO()):  # it tells the number of images each time
        return generator.flow_from_directory(
            folder, target_size=(size, size), class_mode="sparse", batch_size=BATCH, shuffle=False
        )


def _in_our_order(flow: DirectoryIterator) -> keras.utils.PyDataset:
    """Return the generator's batches, of the images that ours has in each epoch's batches."""

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
    """Return all images, and which of them train and validate, in the generator's order."""
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


def _tell(setting: str, arguments: argparse.Namespace, sides: dict[str, dict]) -> None:
    size, first, second = SIZES[setting], sides["original"], sides["ours"]
    views = f", {arguments.views} augmented views" if arguments.views else ", unchanged images"
    print(
        f"\n{setting}, {size} x {size} x 3, {arguments.images} images, {arguments.epochs} epochs{views}, {arguments.precision}"
    )
    print(f"  original  {first['seconds']:8.1f} s  peak {first['peak']:6.0f} MB")
    print(
        f"  ours      {second['seconds']:8.1f} s  peak {second['peak']:6.0f} MB  (features {second['features']:.1f} s)"
    )
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
    parser.add_argument("setting", nargs="?", choices=list(SIZES), help="both by default")
    parser.add_argument(
        "--images", type=int, default=400, help="to train on; a fifth more validate (400)"
    )
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of ours"
    )
    parser.add_argument(
        "--views",
        type=int,
        default=0,
        help="augmented copies of each image in ours; 0 changes nothing (0)",
    )
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
