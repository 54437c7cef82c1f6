"""A trained model's folder, of whatever kind, as one thing that predicts, and says how strange to it an image is.

`model.keras`, or `model.skops`, which works on pixels or on what `features.keras` makes of them; beside it
`classes.json`, the classes in the order of the outputs, `input.json`, how a picture becomes pixels, which views of it are
averaged, `calibration.json`, the temperature that makes the probabilities honest, and
`familiar.npz`, what is usual of each class.
"""

import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tasks.errors import UserError
from tasks.modeling import out_of_distribution as ood
from tasks.modeling import temperature
from tasks.modeling import test_time_augmentation as tta
from tasks.params.model_input import Form, View
from tasks.results import CALIBRATION_JSON, CLASSES_JSON, read_temperature

BATCH = 64  # images at a time, as while training
# What reading a damaged or foreign file raises, in Keras, HDF5 and zip.
DAMAGES = (
    zipfile.BadZipFile, zlib.error, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OSError, ImportError,
    RuntimeError, OverflowError, MemoryError,
)  # fmt: skip

# From pixels to probabilities as the model alone has them, and the statistics of its last feature map, if it has one.
Raw = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Saved:
    """A trained model. Pixels are `uint8` of shape (images, *shape_of(forms)), as `tasks.imaging.decode.render` makes them."""

    classes: list[str]
    forms: tuple[Form, ...]
    # Pixels to probabilities (images, classes) and distances from the training images (images,), both float32.
    answer: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probabilities alone."""
        return self.answer(pixels)[0]


def save(
    model: Any,
    features: Any,
    classes: list[str],
    form: Form,
    test_views: Sequence[View],
    folder: Path,
) -> str:
    """Write a Keras model, or a scikit-learn pipeline with its network of `features` if any; return a summary in words.

    Equal models give equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    describe(folder, classes, form, test_views)
    networks = {"model.keras": model} if hasattr(model, "layers") else {"features.keras": features}
    networks = {name: network for name, network in networks.items() if network is not None}
    for name, network in networks.items():
        network.save(folder / name)
        normalise_archive(folder / name)
    lines: list[str] = []
    for network in networks.values():
        network.summary(line_length=100, print_fn=lines.append)
    if "model.keras" not in networks:
        from tasks.modeling import classical

        classical.save(model, folder / "model.skops")
        lines.append(str(model))
    return "\n".join(lines)


def describe(folder: Path, classes: list[str], form: Form, test_views: Sequence[View] = ()) -> None:
    """Write what `load` needs to know beside the model; what is as it always was is left out, so that old models stay equal."""
    (folder / CLASSES_JSON).write_text(json.dumps(classes, indent=2, ensure_ascii=False) + "\n")
    taken = asdict(form) | {"test_views": list(test_views)}
    if form.bits is None:
        del taken["bits"]
    (folder / "input.json").write_text(json.dumps(taken, indent=2) + "\n")


def complete(folder: Path, degrees: float, usual: np.ndarray) -> None:
    """Write the temperature and the usual description of each class, which are learnt from what the saved model answers."""
    (folder / CALIBRATION_JSON).write_text(json.dumps({"temperature": degrees}, indent=2) + "\n")
    write_npz(folder / "familiar.npz", usual=usual)


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as `np.savez` does, with the same bytes on each Python: its headers differ between 3.11.2 and 3.11.7."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())


def load(folder: Path) -> Saved:
    """Return the model of `folder`. Raises `UserError` where its files do not fit together."""
    classes = read(folder / CLASSES_JSON)
    form, test_views = read_input(folder)
    shape = form.shape
    if (folder / "model.keras").exists():
        raw, inputs, outputs = _keras(folder / "model.keras")
    elif (folder / "model.skops").exists():
        raw, inputs, outputs = _classical(folder, shape)
    else:
        raise UserError(
            f"{folder} holds no model: expected model.keras or model.skops; train it again"
        )
    if inputs != shape:
        raise UserError(
            f"{folder}: the model takes pixels of shape {inputs}, input.json says {shape}; train it again"
        )
    if outputs != len(classes):
        raise UserError(
            f"{folder}: the model has {outputs} outputs, classes.json has {len(classes)} classes; train it again"
        )
    degrees, usual = read_temperature(folder / CALIBRATION_JSON), _usual(folder / "familiar.npz")

    def answer(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_pixels(pixels, shape)
        probabilities, statistics = tta.averaged(raw, pixels, test_views)
        distances = ood.distances(ood.describe(pixels, statistics), usual)
        return temperature.apply(probabilities, degrees), distances

    return Saved(classes, (form,), answer)


def check_pixels(pixels: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` where these are no images of that shape."""
    if pixels.shape[1:] != shape or pixels.dtype != np.uint8:
        raise UserError(f"expected uint8 pixels of shape (images, {', '.join(map(str, shape))}), "
                         f"received {pixels.dtype} of shape {pixels.shape}")  # fmt: skip


def load_keras(file: Path) -> Any:
    """Return a Keras model of plain layers. Raises `UserError` for one that would run code of its own, or is damaged."""
    import keras

    try:
        return keras.saving.load_model(file, safe_mode=True, compile=False)
    except DAMAGES as error:
        raise UserError(
            f"{file} is refused: expected a Keras archive of plain layers, as training wrote it, received "
            f"{_received(file, error)}; train it again, or bring it back from a back-up"
        ) from error


def normalise_archive(path: Path) -> None:
    """Rewrite a `.keras` file so that equal models are equal files: no date, no times, objects numbered in order."""
    part = path.with_suffix(".part")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(part, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                content = json.dumps(json.loads(content) | {"date_saved": ""}).encode()
            elif name == "config.json":
                content = number_objects(content.decode()).encode()
            target.writestr(zipfile.ZipInfo(name), content)
    part.replace(path)


def number_objects(config: str) -> str:
    """Replace the ids of shared objects, which are addresses in memory, by 1, 2, 3 in order of appearance."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'("shared_object_id": )(\d+)',
        lambda match: f"{match[1]}{numbers.setdefault(match[2], len(numbers) + 1)}",
        config,
    )


def _received(file: Path, error: Exception) -> str:
    """Return what a file is that Keras refuses, without its advice to trust the file."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as content:
            return f"{file.stat().st_size:,} bytes that begin with {content.read(8)!r} and are no such archive"
    unknown = re.search(r"Could not locate (?:class|function) '[^']*'", str(error))
    if "Lambda" in str(error):
        return "one with a Lambda layer, which runs code of its own"
    return f"one that Keras cannot load ({unknown[0] if unknown else (str(error).splitlines() or [repr(error)])[0][:200]})"


def read(file: Path) -> list | dict:
    """Return what a JSON file beside a model holds. Raises `UserError` where it is damaged."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing: expected beside the model, where training wrote it; train it again"
        ) from None
    except ValueError as error:
        raise UserError(
            f"{file} is damaged: expected JSON as training wrote it, received {error}; train it again"
        ) from error


def read_input(folder: Path) -> tuple[Form, tuple[View, ...]]:
    """Return how a picture becomes pixels, and the views of them that are averaged; a model from before has none."""
    file = folder / "input.json"
    content = read(file)
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
            f"{file}: expected image_size and channels, as training wrote them, received {content}; train it again"
        ) from error
    return form, test_views


def _usual(file: Path) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)["usual"]
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing: expected beside the model, where training wrote it; train it again"
        ) from None
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise UserError(
            f"{file} is damaged ({error!r}): expected what training wrote; train it again"
        ) from error


def _keras(file: Path) -> tuple[Raw, tuple[int, ...], int]:
    """Return a Keras model as a function, the shape of one input, and the number of outputs."""
    model = load_keras(file)
    both = ood.answering(model)

    def raw(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # As `predict` would say, bit by bit, but that costs a tenth of a second a call, and a server calls for one image.
        blocks = [
            both.predict_on_batch(pixels[start : start + BATCH])
            for start in range(0, len(pixels), BATCH)
        ]
        probabilities, statistics = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        return probabilities, statistics

    return raw, model.input_shape[1:], model.output_shape[-1]


def _classical(folder: Path, shape: tuple[int, ...]) -> tuple[Raw, tuple[int, ...], int]:
    """Return a scikit-learn model likewise, behind its features where it has some."""
    from tasks.modeling import classical

    estimator, count = classical.load(folder / "model.skops"), int(np.prod(shape))

    def features(pixels: np.ndarray) -> tuple[np.ndarray, None]:
        return classical.flatten(pixels), None

    if (folder / "features.keras").exists():
        features, shape, count = _keras(folder / "features.keras")
    if count != estimator.n_features_in_:
        raise UserError(
            f"{folder}: the model takes {estimator.n_features_in_} features, received {count}; train it again"
        )

    def raw(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        blocks = [features(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
        probabilities = np.concatenate(
            [classical.probabilities(estimator, block) for block, _ in blocks]
        )
        return probabilities, None if blocks[0][1] is None else np.concatenate(
            [statistics for _, statistics in blocks]
        )

    return raw, shape, len(estimator.classes_)
