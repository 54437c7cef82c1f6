"""Measure how fast each architecture trains and predicts here: `python -m tasks.tuning.speed`.

It prints one line of JSON for each measurement, so that a caller with little time can stop it. The
weights are random: they do not change the time.
"""

import json
import os
import resource
import time
from collections.abc import Callable

import numpy as np

from tasks.params.architectures import Architecture, Cnn
from tasks.params.whole import load_params

CLASSES = 4
BATCH = 8  # images of a backbone's forward pass


def main() -> None:
    """Print the seconds of TensorFlow's import, and then the measurements of each architecture."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sections = load_params().architectures
    started = time.perf_counter()
    import keras  # noqa: F401

    print(json.dumps({"imported": time.perf_counter() - started}), flush=True)
    for name, section in sorted(sections.items(), key=lambda pair: _pixels(pair[1])):
        print(json.dumps({"architecture": name, **measure(section)}), flush=True)


def _pixels(section: Architecture) -> int:
    """Return the size of an input: small models are measured first."""
    height, width = section.train.image_size
    return height * width * (100 if section.structure.pretrained else 1)


def measure(section: Architecture) -> dict[str, float]:
    """Return seconds of a training and of a prediction for one image, and the peak memory so far.

    `first` is what a training takes before its first step.
    """
    structure = section.structure
    if structure.pretrained:
        found = measure_backbone(section, structure.pretrained.backbone)
    elif isinstance(structure, Cnn):
        found = measure_cnn(section, structure)
    else:
        found = {"first": 1.0, "train": 0.0, "predict": 0.0, "parameters": 0.0}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found | {"peak_mb": peak}


def measure_cnn(section: Architecture, structure: Cnn) -> dict[str, float]:
    """Time a step of training and a prediction of a CNN."""
    import keras

    from tasks.modeling.layers import build_model

    train = section.train
    model = build_model(structure, (*train.image_size, train.channels), CLASSES, fused=True)
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", jit_compile=False)
    pixels = np.zeros((train.batch_size, *train.image_size, train.channels), np.uint8)
    labels = np.zeros(train.batch_size, np.int32)
    first, step = _time(lambda: model.train_on_batch(pixels, labels))
    _, prediction = _time(lambda: model.predict_on_batch(pixels))
    return {
        "first": first,
        "train": step / len(pixels),
        "predict": prediction / len(pixels),
        "parameters": model.count_params(),
    }


def measure_backbone(section: Architecture, backbone: str) -> dict[str, float]:
    """Time a prediction of a pretrained backbone; training all layers takes three times that."""
    import keras

    height, width = section.train.image_size
    build = getattr(keras.applications, backbone)
    model = build(include_top=False, weights=None, input_shape=(height, width, 3), pooling="avg")
    pixels = np.zeros((BATCH, height, width, 3), np.uint8)
    first, prediction = _time(lambda: model.predict_on_batch(pixels))
    seconds = prediction / BATCH
    return {
        "first": first,
        "train": 3 * seconds,
        "predict": seconds,
        "parameters": model.count_params(),
    }


def _time(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of the first call, which traces the graph, and of a later one."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds[0], min(seconds[1:])


if __name__ == "__main__":
    main()
