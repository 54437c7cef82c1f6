"""Numbers as a person reads them, each saying in the page which it is: `<data value=… data-metric=… data-model=…>`.

Programs find them there, and the tests, which compute each of them anew.
"""

import math
import re

from markupsafe import Markup, escape

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


def number(value: object, metric: str, form: str = "score", **about: object) -> Markup:
    """Return the number as HTML, marked with its metric and what it is `about`; a dash where there is none."""
    return (
        Markup(BLANK)
        if is_blank(value)
        else _marked(f"{float(value):.7g}", told(value, form), {"metric": metric, **about})
    )


def setting(value: object, name: str, **about: object) -> Markup:
    """Return what params say, such as `32 64 128`, as HTML, marked like a number; a dash where nothing is said."""
    return (
        Markup(BLANK)
        if is_blank(value)
        else _marked(str(value), str(value), {"metric": name, **about})
    )


def interval(score: Score, metric: str, **about: object) -> Markup:
    """Return the ends of a score's interval as HTML; nothing where there is none."""
    if is_blank(score["low"]):
        return Markup()
    return Markup("{} to {}").format(
        *(number(score[end], f"{metric}_{end}", **about) for end in ("low", "high"))
    )


def told(value: object, form: str = "score") -> str:
    """Return the number as text."""
    if is_blank(value):
        return BLANK
    if form == "p" and float(value) < 0.001:
        return "< 0.001"
    return (
        duration(float(value))
        if form == "duration"
        else FORMS[form].format(float(value)).replace("%", " %")
    )


def told_interval(score: Score) -> str:
    """Return the ends of a score's interval as text; "" where there is none."""
    return "" if is_blank(score["low"]) else f"{told(score['low'])} to {told(score['high'])}"


def breakable(name: str) -> Markup:
    """Return a name or path as HTML that may break after its slashes and underscores."""
    return Markup(re.sub("([/_])", r"\1<wbr>", str(escape(name))))


def duration(seconds: float) -> str:
    """Return a time with its unit: 4 ms, 1.3 s, 13.6 min, 2.1 h."""
    for limit, unit, size in ((1, "ms", 0.001), (90, "s", 1), (5400, "min", 60)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:.3g} h"


def is_blank(value: object) -> bool:
    """Say whether there is no such number: None, an empty cell, not a number."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _marked(value: str, text: str, marks: dict[str, object]) -> Markup:
    attributes = Markup("").join(
        Markup(' data-{}="{}"').format(name, mark) for name, mark in marks.items()
    )
    return Markup('<data value="{}"{}>{}</data>').format(value, attributes, text)
