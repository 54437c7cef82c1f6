"""Show where a model looked, by Grad-CAM: `data/explanations/<architecture>`.

For each class this takes the most confident right and wrong predictions among the validation and
test images, at most one from each group of duplicates. `explanations.csv` lists them. Each has two
small JPEG pictures: the image, and the image with its heat map.

`sanity.json` reports how similar the heat maps are to heat maps of random weights, as a rank
correlation (Adebayo et al. 2018, arXiv 1810.03292). Near 1, the heat maps would show the image and
not what the model learnt. For a model without feature maps the table is empty, and `sanity.json`
gives the reason. `report: {thumbnails: false}` writes no pictures.
Run by hand: `dvc repro --single-item explain@cnn_a`.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.stats import spearmanr

from tasks.errors import UserError
from tasks.imaging.decode import decode_file
from tasks.imaging.render import render, show
from tasks.inference import gradcam
from tasks.modeling import saved
from tasks.modeling.training import use_threads
from tasks.params.explain import Explain
from tasks.params.model_input import Form
from tasks.params.read import read_section
from tasks.params.read_architectures import read_architecture
from tasks.params.report import Report
from tasks.scoring.predictions import list_classes
from tasks.stage import run
from tasks.tables import read_table, write_table

COLUMNS = ["path", "label", "predicted", "confidence", "kind", "split"]
SIDE = 192  # pixels of a picture's longer side
QUALITY = 85
DRAWS = 3  # draws of random weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The architecture to explain, the files to read, and the folder to write."""

    architecture: str
    clean: Path
    splits_csv: Path
    predictions_csv: Path
    models: Path
    explanations: Path


@dataclass(frozen=True)
class Inputs:
    """Pixels of the chosen images, and the index of the predicted class of each."""

    pixels: NDArray[np.uint8]
    predicted: list[int]


def main(options: Options) -> None:
    """Write explanations.csv, sanity.json and two pictures for each row."""
    training = read_architecture(options.architecture).train
    use_threads(training.threads)
    keras.utils.set_random_seed(training.seed)
    predictions = read_table(options.predictions_csv)
    chosen = choose(predictions, read_table(options.splits_csv), read_section("explain", Explain))
    form, _ = saved.read_input(options.models)
    heats, sanity = explain(options, chosen, list_classes(predictions), form)
    options.explanations.mkdir(parents=True, exist_ok=True)
    shown = chosen[: len(heats)].assign(picture="", overlay="")  # empty without feature maps
    if read_section("report", Report).thumbnails:
        shown = draw_all(options, shown, heats, form)
    write_table(shown, options.explanations / "explanations.csv")
    (options.explanations / "sanity.json").write_text(json.dumps(sanity, indent=2) + "\n")
    log_summary(options.architecture, sanity)


def choose(predictions: pd.DataFrame, splits: pd.DataFrame, params: Explain) -> pd.DataFrame:
    """Return `COLUMNS` of the most confident right and wrong predictions of each class.

    Of each group there is at most one right and one wrong prediction.
    """
    held_out = predictions[predictions.split.isin(["validation", "test"])]
    held_out = held_out.assign(
        confidence=held_out.filter(regex="^p_").max(axis=1),
        kind=np.where(held_out.label == held_out.predicted, "right", "wrong"),
        group=held_out.path.map(splits.set_index("path").group),
    )
    surest = held_out.sort_values(["confidence", "path"], ascending=[False, True]).drop_duplicates(
        ["group", "kind"]
    )
    wanted = surest.kind.map({"right": params.right, "wrong": params.wrong})
    chosen = surest[surest.groupby(["label", "kind"]).cumcount() < wanted]
    return chosen.sort_values(["label", "kind"], kind="stable", ignore_index=True)[COLUMNS]


def explain(
    options: Options, chosen: pd.DataFrame, classes: list[str], form: Form
) -> tuple[NDArray[np.float32], dict[str, object]]:
    """Return the heat maps of the chosen images and the content of sanity.json.

    A model without feature maps has no heat maps; the content then gives the reason.
    """
    nothing = np.empty((0, 1, 1), np.float32)
    try:
        explainer = gradcam.load(options.models)
    except UserError as error:
        return nothing, {"reason": str(error), "images": 0}
    if chosen.empty:
        reason = "params.yaml asks for no image (explain.right, explain.wrong)"
        return nothing, {"reason": reason, "images": 0}
    pixels = np.stack([render(decode_file(options.clean / path), form) for path in chosen.path])
    inputs = Inputs(pixels, chosen.predicted.map(classes.index).tolist())
    heats = explainer.heatmaps(inputs.pixels, inputs.predicted)
    return heats, {
        "reason": None,
        "images": len(chosen),
        "grid": list(explainer.grid),
        "correlation_random_head": correlate(explainer, inputs, heats, everything=False),
        "correlation_random_network": correlate(explainer, inputs, heats, everything=True),
    }


def correlate(
    explainer: gradcam.Explainer, inputs: Inputs, heats: NDArray[np.float32], everything: bool
) -> float | None:
    """Return the mean rank correlation between heat maps and heat maps of random weights.

    It is the mean over `DRAWS` draws, and the last random weights stay in `explainer`. A map that
    is the same everywhere, such as an empty one, has no correlation and is left out; None if all
    are left out. `everything` also randomises the weights below the feature maps.
    """
    found = []
    for _ in range(DRAWS):
        explainer.randomise(everything)
        pairs = zip(heats, explainer.heatmaps(inputs.pixels, inputs.predicted), strict=True)
        found += [
            spearmanr(one, other, axis=None).statistic
            for one, other in pairs
            if np.ptp(one) > 0 and np.ptp(other) > 0
        ]
    return round(float(np.mean(found)), 3) if found else None


def draw_all(
    options: Options, shown: pd.DataFrame, heats: NDArray[np.float32], form: Form
) -> pd.DataFrame:
    """Write the pictures of all rows, and return the rows with their file names."""
    names = [f"{number:03}" for number in range(1, len(shown) + 1)]
    shown = shown.assign(
        picture=[f"{name}.jpg" for name in names],
        overlay=[f"{name}_overlay.jpg" for name in names],
    )
    for row, heat in zip(shown.itertuples(), heats, strict=True):
        image = show(decode_file(options.clean / row.path), form)
        draw(image, heat, options.explanations / row.picture, options.explanations / row.overlay)
    return shown


def draw(image: Image.Image, heat: NDArray[np.float32], picture: Path, overlay: Path) -> None:
    """Write a small picture of the model's input, and the same with its heat map laid over it."""
    small = ImageOps.contain(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR)
    small.save(picture, quality=QUALITY)
    Image.fromarray(gradcam.overlay(np.asarray(small), heat)).save(overlay, quality=QUALITY)


def log_summary(architecture: str, sanity: dict[str, object]) -> None:
    """Log the number of explained images and how much random weights change their heat maps."""
    if sanity["reason"]:
        log.info("%s: no explanations: %s", architecture, sanity["reason"])
        return
    log.info(
        "%s: %d images explained; rank correlation with the heat maps of a random head %s, of a "
        "random network %s",
        architecture,
        sanity["images"],
        sanity["correlation_random_head"],
        sanity["correlation_random_network"],
    )


if __name__ == "__main__":
    run(main)
