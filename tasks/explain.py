"""Show where one architecture looked: `data/explanations/<architecture>`.

Of each class the surest right and the surest wrong answers among validation and test images, one of each group of copies,
with the Grad-CAM of what was predicted, in `explanations.csv` and as small JPEG pictures. `sanity.json` tells how much of the
maps is left when weights are random (Adebayo et al. 2018, arXiv 1810.03292): a rank correlation near 1 would mean that they
show the picture and not what was learnt. A model without feature maps gives an empty table, and the reason in `sanity.json`.
`report: {thumbnails: false}` writes no pictures. Run by hand: `dvc repro --single-item explain@cnn_a`.
"""

import json
import logging
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from scipy.stats import spearmanr

from tasks.errors import UserError
from tasks.imaging.decode import decode_file
from tasks.imaging.render import render, show
from tasks.inference import gradcam
from tasks.modeling import saved
from tasks.modeling.training import use_threads
from tasks.params.architectures import read_architecture
from tasks.params.explain import Explain
from tasks.params.model_input import Form
from tasks.params.read import read_section
from tasks.params.report import Report
from tasks.scoring.predictions import list_classes
from tasks.stage import run
from tasks.tables import read_table, write_table

COLUMNS = ["path", "label", "predicted", "confidence", "kind", "split"]
SIDE = 192  # pixels of a picture's longer side
QUALITY = 85
DRAWS = 3  # of random weights

log = logging.getLogger(__name__)


def main(
    architecture: str,
    clean: Path,
    splits_csv: Path,
    predictions_csv: Path,
    models: Path,
    explanations: Path,
) -> None:
    """Write explanations.csv, sanity.json, and a picture and its overlay for each row."""
    training = read_architecture(architecture).train
    use_threads(training.threads)
    keras.utils.set_random_seed(training.seed)
    predictions = read_table(predictions_csv)
    chosen = choose(predictions, read_table(splits_csv), read_section("explain", Explain))
    form, _ = saved.read_input(models)
    heats, sanity = explain(models, clean, chosen, list_classes(predictions), form)
    explanations.mkdir(parents=True, exist_ok=True)
    shown = chosen[: len(heats)].assign(picture="", overlay="")  # none without feature maps
    if read_section("report", Report).thumbnails:
        names = [f"{number:03}" for number in range(1, len(shown) + 1)]
        shown = shown.assign(
            picture=[f"{name}.jpg" for name in names],
            overlay=[f"{name}_overlay.jpg" for name in names],
        )
        for row, heat in zip(shown.itertuples(), heats, strict=True):
            picture = show(decode_file(clean / row.path), form)
            draw(picture, heat, explanations / row.picture, explanations / row.overlay)
    write_table(shown, explanations / "explanations.csv")
    (explanations / "sanity.json").write_text(json.dumps(sanity, indent=2) + "\n")
    tell(architecture, sanity)


def choose(predictions: pd.DataFrame, splits: pd.DataFrame, params: Explain) -> pd.DataFrame:
    """Return `COLUMNS` of the surest right and wrong answers of each class, at most one of a group of each kind."""
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
    model: Path, clean: Path, chosen: pd.DataFrame, classes: list[str], form: Form
) -> tuple[np.ndarray, dict[str, object]]:
    """Return the heat map of each chosen image, and what random weights leave of it; without feature maps none, and why."""
    try:
        explainer = gradcam.load(model)
    except UserError as error:
        return np.empty((0, 1, 1)), {"reason": str(error), "images": 0}
    if chosen.empty:
        return np.empty((0, 1, 1)), {
            "reason": "params.yaml asks for no image (explain.right, explain.wrong)",
            "images": 0,
        }
    pixels = np.stack([render(decode_file(clean / path), form) for path in chosen.path])
    answers = chosen.predicted.map(classes.index).tolist()
    heats = explainer.heatmaps(pixels, answers)
    sanity: dict[str, object] = {
        "reason": None,
        "images": len(chosen),
        "grid": list(explainer.grid),
    }
    for name, everything in (
        ("correlation_random_head", False),
        ("correlation_random_network", True),
    ):
        sanity[name] = correlation(explainer, pixels, answers, heats, everything)
    return heats, sanity


def correlation(
    explainer: gradcam.Explainer,
    pixels: np.ndarray,
    answers: list[int],
    heats: np.ndarray,
    everything: bool,
) -> float | None:
    """Return the mean rank correlation of heat maps with those after `DRAWS` draws of random weights, which stay.

    Maps that are the same everywhere, such as empty ones, have none and are left out; None where no others are.
    """
    found = []
    for _ in range(DRAWS):
        explainer.randomise(everything)
        pairs = zip(heats, explainer.heatmaps(pixels, answers), strict=True)
        found += [
            spearmanr(one, other, axis=None).statistic
            for one, other in pairs
            if np.ptp(one) > 0 and np.ptp(other) > 0
        ]
    return round(float(np.mean(found)), 3) if found else None


def draw(shown: Image.Image, heat: np.ndarray, picture: Path, overlay: Path) -> None:
    """Write a small picture of what the model saw, and the same with its heat map laid over it."""
    small = ImageOps.contain(shown.convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR)
    small.save(picture, quality=QUALITY)
    Image.fromarray(gradcam.overlay(np.asarray(small), heat)).save(overlay, quality=QUALITY)


def tell(architecture: str, sanity: dict[str, object]) -> None:
    """Log what a person wants to know."""
    if sanity["reason"]:
        log.info("%s: no explanations: %s", architecture, sanity["reason"])
        return
    log.info(
        "%s: %d images explained; rank correlation with the maps of a random head %s, of a random network %s",
        architecture, sanity["images"], sanity["correlation_random_head"], sanity["correlation_random_network"],
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
