"""Show numbers to a person, and mark each number in the page for programs.

A marked number is `<data value="0.875" data-metric="test_accuracy">0.875</data>`.
The tests compute each marked number again.
"""

import math
import re
from typing import Any

from markupsafe import Markup, escape

from tasks.reporting.language import _

FORMS = {
    "score": "{:.3f}",
    "share": "{:.2f}",
    "ratio": "{:.1f}",
    "count": "{:,.0f}",
    "plain": "{:.4g}",
    "percent": "{:.1%}",
    "p": "{:.3f}",
}
BLANK = "–"

Score = dict[str, float | None]  # value, low and high


def mark_number(value: Any, metric: str, form: str = "score", **about: object) -> Markup:
    """Return a number as HTML, marked with its metric and its subject. A dash if it is blank."""
    if is_blank(value):
        return Markup(BLANK)
    marks = {"metric": metric, **about}
    return _mark(f"{float(value):.7g}", format_number(value, form), marks)


def mark_setting(value: Any, name: str, **about: object) -> Markup:
    """Return a setting such as `32 64 128` as HTML, marked like a number. A dash if it is blank."""
    if is_blank(value):
        return Markup(BLANK)
    return _mark(str(value), str(value), {"metric": name, **about})


def mark_interval(score: Score, metric: str, **about: object) -> Markup:
    """Return the two ends of an interval as HTML. Empty if there is no interval."""
    if is_blank(score["low"]):
        return Markup()
    low, high = (
        mark_number(score[end], f"{metric}_{end}", "score", **about) for end in ("low", "high")
    )
    return Markup(_("{low} to {high}")).format(low=low, high=high)


def format_number(value: Any, form: str = "score") -> str:
    """Return a number as text, in one of `FORMS` or as a duration."""
    if is_blank(value):
        return BLANK
    if form == "duration":
        return format_duration(float(value))
    if form == "p" and float(value) < 0.001:
        return "< 0.001"
    return FORMS[form].format(float(value)).replace("%", " %")


def format_interval(score: Score) -> str:
    """Return the two ends of an interval as text. Empty if there is no interval."""
    if is_blank(score["low"]):
        return ""
    low, high = format_number(score["low"]), format_number(score["high"])
    return _("{low} to {high}").format(low=low, high=high)


def format_duration(seconds: float) -> str:
    """Return a time with its unit: 4 ms, 1.3 s, 13.6 min, 2.1 h."""
    for limit, unit, size in ((1, "ms", 0.001), (90, "s", 1), (5400, "min", 60)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:.3g} h"


def allow_breaks(name: str) -> Markup:
    """Return a name or path as HTML whose lines may break after a slash or an underscore."""
    return Markup(re.sub("([/_])", r"\1<wbr>", str(escape(name))))


def is_blank(value: object) -> bool:
    """Return whether a cell holds no number: None, an empty text, or NaN."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _mark(value: str, text: str, marks: dict[str, object]) -> Markup:
    attributes = Markup("").join(
        Markup(' data-{}="{}"').format(name, mark) for name, mark in marks.items()
    )
    return Markup('<data value="{}"{}>{}</data>').format(value, attributes, text)
