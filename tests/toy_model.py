"""A small network of random weights, kept as training keeps one."""

from pathlib import Path

import numpy as np

from tasks.imaging.form import Form
from tasks.modeling import familiar, saved
from tasks.modeling.architectures import Cnn
from tasks.modeling.layers import build_model

CLASSES = ["zebra", "NA", "tumeur née"]
SIZE = (20, 16)


def write(folder: Path, channels: int) -> Path:
    """Write a model of images of `SIZE` for `CLASSES`; usual is, for all of them, a grey picture."""
    model = build_model(Cnn(filters=(4,), dense=(8,)), SIZE, channels, len(CLASSES))
    saved.save(model, None, CLASSES, Form(SIZE, channels), (), folder)
    grey = np.full((1, *SIZE, channels), 100, np.uint8)
    saved.complete(folder, 1.5, familiar.describe(grey, familiar.reading(model).predict(grey, verbose=0)))
    return folder
