"""Predictions as HTML: one with its heat map, many as a table with a CSV, and the model's card.

Images and CSV are `data:` addresses in the page itself, so that no file is written for them. The
heat map is a layer over the image, and the browser alone changes its opacity.
"""

import base64
import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader
from numpy.typing import NDArray
from PIL import Image

from serving import rows
from serving.current import Model
from tasks.imaging.decode import decode_bytes
from tasks.imaging.picture import REASONS
from tasks.inference.gradcam import COLOURS
from tasks.inference.predictor import Answer, Predictor
from tasks.reporting import language
from tasks.reporting.language import N_, _, ngettext

language.FOLDERS.append(Path(__file__).parent / "locale")

BARS = 8  # classes with a bar, at most
SIDE = 640  # pixels of the longer side of an image, at most
EXAMPLE_SIDE = 160
SCORES = {
    "accuracy": N_("accuracy"),
    "macro_f1": N_("macro F1"),
    "balanced_accuracy": N_("balanced accuracy"),
    "calibration_error": N_("calibration error"),
    "without_copies_accuracy": N_("accuracy without copies"),
}
FOLDER = Path(__file__).parent / "templates"
TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=True,
    trim_blocks=True,
    extensions=["jinja2.ext.i18n"],
)
TEMPLATES.install_gettext_callables(_, ngettext, newstyle=True)  # type: ignore[attr-defined]  # the extension adds it


def render_answer(
    model: Model, name: str, answer: Answer, picture: Image.Image, heat: NDArray[np.float32] | None
) -> str:
    """Return the prediction for one file. `heat` is (height, width), 0 to 1."""
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:BARS]
    return _render(
        "answer.html",
        name=name,
        answer=answer,
        ranked=ranked,
        limits=model.predictor.thresholds,
        model=model.predictor.name,
        picture=_embed_picture(picture, SIDE),
        heat="" if heat is None else _embed_heat(heat),
        no_heat_map=model.no_heat_map,
        name_class=model.predictor.name_class,
    )


def render_table(predictor: Predictor, names: Sequence[str], answers: Sequence[Answer]) -> str:
    """Return a table of predictions, with the CSV of `python -m serving.predict` to download."""
    doubts = [_find_doubt(answer) for answer in answers]
    counts = Counter(doubt or _("predicted") for doubt in doubts)
    remarks = [
        f"{doubt}{_(': ')}{describe_error(answer.error)}" if answer.error else doubt
        for doubt, answer in zip(doubts, answers, strict=True)
    ]
    text = make_csv(predictor, names, answers)
    return _render(
        "answers.html",
        rows=list(zip(names, answers, remarks, strict=True)),
        counts=", ".join(f"{count} {what}" for what, count in counts.most_common()),
        csv=_embed("text/csv;charset=utf-8", text.encode()),
        name_class=predictor.name_class,
        model=predictor.name,
    )


def make_csv(predictor: Predictor, names: Sequence[str], answers: Sequence[Answer]) -> str:
    """Return predictions as the text of a CSV file."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(rows.make_header(predictor.columns))
    for name, answer in zip(names, answers, strict=True):
        record = predictor.record(answer)
        table.writerow(rows.make_row(Path(name), answer.sha256, record, predictor.name))
    return text.getvalue()


def render_card(predictor: Predictor, has_report: bool) -> str:
    """Return the model's card: purpose, limits, thresholds, hash and registered scores."""
    facts = predictor.facts
    scores = [
        (_(shown), _format_score(facts, f"val_{name}"), _format_score(facts, f"test_{name}"))
        for name, shown in SCORES.items()
    ]
    return _render(
        "card.html",
        model=predictor,
        facts=facts,
        members=json.loads(facts.get("members", "{}")),
        scores=[row for row in scores if any(row[1:])],
        has_report=has_report,
    )


def render_refusal(what: str, why: str) -> str:
    """Return the reason why there is no prediction."""
    return _render("refusal.html", what=what, why=why)


def describe_error(error: str) -> str:
    """Return a prediction's `error` as a sentence."""
    code, __, detail = error.partition(": ")
    return f"{_(REASONS.get(code, code))} ({detail})"


def render_form(examples: Sequence[tuple[Path, str]], limit: int, language: str) -> str:
    """Return the area for dropped files, and a button for each example with its label."""
    shown = [
        (_embed_picture(decode_bytes(file.read_bytes()).picture, EXAMPLE_SIDE), label)
        for file, label in examples
    ]
    return _render("ask.html", examples=shown, limit=limit, language=language)


def format_percent(probability: float) -> str:
    """Return a probability in percent. Only certainty is shown as 0 or 100."""
    rounded = f"{100 * probability:.1f}"
    shown = {"100.0": "> 99.9 %", "0.0": "< 0.1 %"}.get(rounded, f"{rounded} %")
    return shown.replace(".", _("."))


def format_number(number: float, style: str) -> str:
    """Return a number in a style such as `%.3f`, with the decimal sign of the language."""
    return (style % number).replace(".", _("."))


def _render(template: str, **facts: object) -> str:
    return TEMPLATES.get_template(template).render(
        facts, percent=format_percent, number=format_number
    )


def _find_doubt(answer: Answer) -> str:
    """Return why a prediction is missing or not to be relied on; "" if it is neither."""
    if answer.error:
        return _("without a prediction")
    if answer.unfamiliar:
        return _("unlike the training images")
    return _("not sure enough") if answer.abstained else ""


def _format_score(facts: Mapping[str, str], name: str) -> str:
    """Return a registered score with its 95 % interval, or "" if it is not registered."""
    value, low, high = (facts.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return ""
    shown, *ends = (format_number(float(end), "%.3f") for end in (value, low, high) if end)
    if len(ends) < 2:
        return shown
    interval = _("%(low)s to %(high)s") % {"low": ends[0], "high": ends[1]}
    return f"{shown} ({interval})"


def _embed_picture(picture: Image.Image, side: int) -> str:
    shown = picture.convert("RGB")
    shown.thumbnail((side, side))
    return _embed_image(shown, "JPEG")


def _embed_heat(heat: NDArray[np.float32]) -> str:
    """Return the heat map as an image whose opacity grows with the heat, from 0."""
    pixels = matplotlib.colormaps[COLOURS](heat, bytes=True)
    pixels[..., 3] = np.rint(255 * heat)
    return _embed_image(Image.fromarray(pixels), "PNG")


def _embed_image(image: Image.Image, kind: str) -> str:
    with io.BytesIO() as buffer:
        image.save(buffer, kind, quality=90)
        return _embed(f"image/{kind.lower()}", buffer.getvalue())


def _embed(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
