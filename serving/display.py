"""Answers as HTML: one with its picture and heat map, many as a table with its CSV, and the model's card.

Pictures and CSV are `data:` addresses in the page itself, so that no file is written for them. The heat map lies over the
picture with an opacity that the browser alone changes.
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
from PIL import Image

from serving import rows
from tasks.imaging.decode import decode_bytes
from tasks.imaging.picture import REASONS
from tasks.inference.gradcam import COLOURS
from tasks.inference.predictor import Answer, Predictor

SHOWN = 8  # classes with a bar
SIDE = 640  # pixels of the longer side of a shown picture, at most
SMALL = 160  # of an example
SCORES = (
    "accuracy",
    "macro_f1",
    "balanced_accuracy",
    "calibration_error",
    "without_copies_accuracy",
)
FOLDER = Path(__file__).parent / "templates"
TEMPLATES = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True)


def one(
    predictor: Predictor, name: str, answer: Answer, picture: Image.Image, heat: np.ndarray | str
) -> str:
    """Return the answer to one file; `heat` is float32 (height, width), 0 to 1, or why there is none."""
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:SHOWN]
    drawn = not isinstance(heat, str)
    return _fill(
        "answer.html",
        name=name,
        answer=answer,
        ranked=ranked,
        limits=predictor.thresholds,
        model=predictor.name,
        picture=_picture(picture, SIDE),
        heat=_layer(heat) if drawn else "",
        without="" if drawn else heat,
    )


def many(predictor: Predictor, names: Sequence[str], answers: Sequence[Answer]) -> str:
    """Return a table of the answers, and the columns of `python -m serving.predict` as a CSV to download."""
    counts = Counter(_remark(answer).split(":")[0] or "answered" for answer in answers)
    return _fill(
        "answers.html",
        rows=list(zip(names, answers, strict=True)),
        counts=", ".join(f"{count} {what}" for what, count in counts.most_common()),
        csv=_address("text/csv;charset=utf-8", table(predictor, names, answers).encode()),
        remark=_remark,
        model=predictor.name,
    )


def table(predictor: Predictor, names: Sequence[str], answers: Sequence[Answer]) -> str:
    """Return the text of the CSV file."""
    text = io.StringIO()
    written = csv.writer(text, lineterminator="\n")
    written.writerow(rows.make_header(predictor.columns))
    for name, answer in zip(names, answers, strict=True):
        written.writerow(
            rows.row(Path(name), answer.sha256, predictor.record(answer), predictor.name)
        )
    return text.getvalue()


def card(predictor: Predictor, report: bool) -> str:
    """Return what is known of the model: what it is for, its thresholds, its hash and the scores it was registered with."""
    facts = predictor.facts
    scores = [
        (name.replace("_", " "), _score(facts, f"val_{name}"), _score(facts, f"test_{name}"))
        for name in SCORES
    ]
    members = json.loads(facts.get("members", "{}"))  # of an ensemble
    return _fill(
        "card.html",
        model=predictor,
        facts=facts,
        members=members,
        scores=[row for row in scores if any(row[1:])],
        report=report,
    )


def refusal(what: str, why: str) -> str:
    """Return why there is no answer."""
    return _fill("refusal.html", what=what, why=why)


def reason(error: str) -> str:
    """Return an answer's `error` in words for people."""
    code, _, detail = error.partition(": ")
    return f"{REASONS.get(code, code)} ({detail})"


def ask(shown: Sequence[tuple[Path, str]], limit: int) -> str:
    """Return the place where files are dropped, and a button for each example with its picture and label."""
    pictures = [_picture(decode_bytes(file.read_bytes()).picture, SMALL) for file, _ in shown]
    return _fill(
        "ask.html",
        examples=list(zip(pictures, [label for _, label in shown], strict=True)),
        limit=limit,
    )


def percent(probability: float) -> str:
    """Return a probability in percent; what is not quite 0 or 1 is never rounded to it."""
    rounded = f"{100 * probability:.1f}"
    return {"100.0": "> 99.9 %", "0.0": "< 0.1 %"}.get(rounded, f"{rounded} %")


def _fill(template: str, **facts: object) -> str:
    return TEMPLATES.get_template(template).render(facts, percent=percent)


def _remark(answer: Answer) -> str:
    if answer.error:
        return f"without an answer: {reason(answer.error)}"
    return (
        "unlike the training images"
        if answer.unfamiliar
        else "not sure enough"
        if answer.abstained
        else ""
    )


def _score(facts: Mapping[str, str], name: str) -> str:
    """Return a score with its 95 % interval, where the registry has one."""
    value, low, high = (facts.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return ""
    interval = f" ({float(low):.3f} to {float(high):.3f})" if low and high else ""
    return f"{float(value):.3f}{interval}"


def _picture(picture: Image.Image, side: int) -> str:
    shown = picture.convert("RGB")
    shown.thumbnail((side, side))
    return _image(shown, "JPEG")


def _layer(heat: np.ndarray) -> str:
    """Return the heat map in colours that cover the more, the hotter they are: at 0 not at all."""
    pixels = matplotlib.colormaps[COLOURS](heat, bytes=True)
    pixels[..., 3] = np.rint(255 * heat)
    return _image(Image.fromarray(pixels), "PNG")


def _image(image: Image.Image, kind: str) -> str:
    with io.BytesIO() as buffer:
        image.save(buffer, kind, quality=90)
        return _address(f"image/{kind.lower()}", buffer.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
