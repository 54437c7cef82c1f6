"""A small network with random weights, saved as training saves one."""

from pathlib import Path

import numpy as np

from tasks.modeling import out_of_distribution as ood
from tasks.modeling import saved
from tasks.modeling.layers import build_model
from tasks.params.architectures import Cnn
from tasks.params.model_input import Form

CLASSES = ["zebra", "NA", "tumeur née"]
SIZE = (20, 16)


def write(folder: Path, channels: int) -> Path:
    """Write a model for images of `SIZE`. The centroid of each class is a grey image."""
    model = build_model(Cnn(filters=(4,), dense=(8,)), (*SIZE, channels), len(CLASSES))
    saved.describe(folder, CLASSES, Form(SIZE, channels))
    saved.save(model, None, folder)
    grey = np.full((1, *SIZE, channels), 100, np.uint8)
    statistics = ood.build_statistics_model(model).predict(grey, verbose=0)
    saved.complete(folder, 1.5, ood.describe(grey, statistics))
    return folder
