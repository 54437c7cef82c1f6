"""The folder of a trained model: write it, and load it as one object that predicts.

The folder contains either `model.keras`, or `model.skops`, which takes pixels or the features that
`features.keras` computes. Beside it are:

- `classes.json`: the classes in the order of the outputs;
- `input.json`: the model input, and the views for test-time augmentation;
- `calibration.json`: the temperature that calibrates the probabilities;
- `familiar.npz`: the class centroids for the out-of-distribution score, with the key `usual`.
"""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tasks.errors import UserError
from tasks.modeling import out_of_distribution as ood
from tasks.modeling import temperature
from tasks.modeling import test_time_augmentation as tta
from tasks.modeling.keras_files import load_keras, normalise_archive
from tasks.params.model_input import Form, View
from tasks.results import CALIBRATION_JSON, CLASSES_JSON, read_temperature, write_temperature

BATCH = 64  # images at a time, as in training

# Predicts pixels: uncalibrated probabilities, and the statistics of the last feature map if any.
Raw = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32] | None]]
# Predicts pixels: probabilities (images, classes) and distances (images,).
Answer = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Saved:
    """A trained model.

    It takes `uint8` pixels of shape (images, *shape_of(forms)), which
    `tasks.imaging.decode.render` makes of images. `answer` returns calibrated probabilities and
    distances from the training images.
    """

    classes: list[str]
    forms: tuple[Form, ...]
    answer: Answer

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities only."""
        return self.answer(pixels)[0]


@dataclass(frozen=True)
class Loaded:
    """A model file in memory: its function, the shape of its input, and the number of outputs."""

    raw: Raw
    shape: tuple[int, ...]
    outputs: int


def save(model: Any, features: Any, folder: Path) -> str:
    """Write a model and return its summary. Equal models give equal bytes.

    The model is a Keras model, or a scikit-learn pipeline with the network that computes its
    `features`, which can be None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    is_network = hasattr(model, "layers")
    name, network = ("model.keras", model) if is_network else ("features.keras", features)
    lines: list[str] = []
    if network is not None:
        network.save(folder / name)
        normalise_archive(folder / name)
        network.summary(line_length=100, print_fn=lines.append)
    if not is_network:
        from tasks.modeling import classical

        classical.save(model, folder / "model.skops")
        lines.append(str(model))
    return "\n".join(lines)


def describe(folder: Path, classes: list[str], form: Form, test_views: Sequence[View] = ()) -> None:
    """Write `classes.json` and `input.json`.

    `bits` is written only if it is set, so that the files of older models stay the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CLASSES_JSON).write_text(json.dumps(classes, indent=2, ensure_ascii=False) + "\n")
    content = asdict(form) | {"test_views": list(test_views)}
    if form.bits is None:
        del content["bits"]
    (folder / "input.json").write_text(json.dumps(content, indent=2) + "\n")


def complete(folder: Path, temperature: float, centroids: NDArray[np.float32]) -> None:
    """Add the temperature and the class centroids, which the saved model must compute first."""
    write_temperature(temperature, folder)
    write_npz(folder / "familiar.npz", usual=centroids)


def write_npz(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays as `np.savez` does, but with the same bytes on every Python.

    The headers that `np.savez` writes differ between Python 3.11.2 and 3.11.7.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())


def load(folder: Path) -> Saved:
    """Load the model of `folder`. Raises `UserError` if its files do not fit together."""
    classes = read_classes(folder)
    form, test_views = read_input(folder)
    loaded = _load_file(folder, form.shape)
    if loaded.shape != form.shape:
        raise UserError(
            f"{folder}: the model takes pixels of shape {loaded.shape}, input.json says "
            f"{form.shape}; train it again"
        )
    if loaded.outputs != len(classes):
        raise UserError(
            f"{folder}: the model has {loaded.outputs} outputs, classes.json has {len(classes)} "
            "classes; train it again"
        )
    fitted = read_temperature(folder / CALIBRATION_JSON)
    centroids = _read_centroids(folder / "familiar.npz")

    def answer(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        check_pixels(pixels, form.shape)
        probabilities, statistics = tta.average(loaded.raw, pixels, test_views)
        distances = ood.measure_distances(ood.describe(pixels, statistics), centroids)
        return temperature.apply(probabilities, fitted), distances

    return Saved(classes, (form,), answer)


def check_pixels(pixels: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Raise `UserError` unless these are `uint8` pixels of images of that shape."""
    if pixels.shape[1:] != shape or pixels.dtype != np.uint8:
        raise UserError(
            f"expected uint8 pixels of shape (images, {', '.join(map(str, shape))}), received "
            f"{pixels.dtype} of shape {pixels.shape}"
        )


def read_json(file: Path) -> Any:
    """Read a JSON file of a model's folder. Raises `UserError` if it is missing or damaged."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise UserError(_describe_missing(file)) from None
    except ValueError as error:
        raise UserError(
            f"{file} is damaged: expected JSON as training wrote it, received {error}; train it "
            "again"
        ) from error


def read_classes(folder: Path) -> list[str]:
    """Return the classes in the order of the outputs. Raises as `read_json` does."""
    return read_json(folder / CLASSES_JSON)


def read_input(folder: Path) -> tuple[Form, tuple[View, ...]]:
    """Return the model input, and the views for test-time augmentation (older models: none)."""
    file = folder / "input.json"
    content = read_json(file)
    try:
        height, width = map(int, content["image_size"])
        optional = {
            key: None if content.get(key) is None else int(content[key])
            for key in ("dark_border", "detail", "bits")
        }
        form = Form((height, width), int(content["channels"]), **optional)
        test_views = tuple(content.get("test_views", ()))
        if not set(test_views) <= set(get_args(View)):
            raise UserError(f"unknown views {test_views}")
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"{file}: expected image_size and channels, as training wrote them, received "
            f"{content}; train it again"
        ) from error
    return form, test_views


def _describe_missing(file: Path) -> str:
    return f"{file} is missing: expected beside the model, as training wrote it; train it again"


def _read_centroids(file: Path) -> NDArray[np.float32]:
    try:
        return np.load(file, allow_pickle=False)["usual"]
    except FileNotFoundError:
        raise UserError(_describe_missing(file)) from None
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise UserError(
            f"{file} is damaged ({error!r}): expected the file that training wrote; train it again"
        ) from error


def _load_file(folder: Path, shape: tuple[int, ...]) -> Loaded:
    if (folder / "model.keras").exists():
        return _load_network(folder / "model.keras")
    if (folder / "model.skops").exists():
        return _load_classical(folder, shape)
    raise UserError(
        f"{folder} contains no model: expected model.keras or model.skops; train it again"
    )


def _load_network(file: Path) -> Loaded:
    model = load_keras(file)
    both = ood.add_statistics(model)

    def raw(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # The same bits as `predict` returns. That takes a tenth of a second for each call, and a
        # server calls for one image.
        blocks = [
            both.predict_on_batch(pixels[start : start + BATCH])
            for start in range(0, len(pixels), BATCH)
        ]
        probabilities, statistics = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        return probabilities, statistics

    return Loaded(raw, model.input_shape[1:], model.output_shape[-1])


def _load_classical(folder: Path, shape: tuple[int, ...]) -> Loaded:
    """Load a scikit-learn model, with the network that computes its features if there is one."""
    from tasks.modeling import classical

    estimator = classical.load(folder / "model.skops")
    if (folder / "features.keras").exists():
        network = _load_network(folder / "features.keras")
    else:
        network = Loaded(
            lambda pixels: (classical.flatten(pixels), None), shape, int(np.prod(shape))
        )
    if network.outputs != estimator.n_features_in_:
        raise UserError(
            f"{folder}: the model takes {estimator.n_features_in_} features, received "
            f"{network.outputs}; train it again"
        )

    def raw(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        blocks = [
            network.raw(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)
        ]
        probabilities = np.concatenate([classical.predict(estimator, block) for block, _ in blocks])
        statistics = [block for _, block in blocks if block is not None]
        return probabilities, np.concatenate(statistics) if statistics else None

    return Loaded(raw, network.shape, len(estimator.classes_))
