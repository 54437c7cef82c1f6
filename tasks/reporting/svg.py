"""Turn figures into SVG text, and fit it into a page."""

import io
import re
from dataclasses import dataclass
from functools import cached_property
from html import escape

import matplotlib
from matplotlib.figure import Figure

from tasks.scoring.figures import GRID, INK, PALETTE, STYLE

VARIABLES = {value: f"var(--c{index})" for index, value in enumerate(PALETTE)} | {
    INK: "currentColor",
    GRID: "var(--line)",
}
TAG = re.compile(r"<[^>]+>")


@dataclass(frozen=True)
class Drawn:
    """A figure, and a text for readers who cannot see it."""

    figure: Figure
    words: str

    @cached_property
    def svg(self) -> str:
        """The figure as SVG text. Drawing takes a tenth of a second, so it is done once."""
        return render(self.figure)


def render(figure: Figure) -> str:
    """Return a figure as an SVG document without a background. Equal figures give equal text."""
    with matplotlib.rc_context(STYLE), io.StringIO() as buffer:
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return buffer.getvalue()


def put_on_white(text: str) -> str:
    """Give an SVG document a white background, for viewers with a dark background."""
    return text.replace("<g id=", '<rect width="100%" height="100%" fill="#ffffff"/>\n <g id=', 1)


def inline(text: str, key: str, words: str) -> str:
    """Turn an SVG document into an element of a page, described by `words`.

    The style sheet of the page sets its colours. `key` keeps its ids different from other figures'.
    """
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    used = {name for tag in TAG.findall(text) for name in re.findall(r"#([^\")]+)[\")]", tag)}
    text = TAG.sub(lambda tag: _adapt_tag(tag[0], key, used), text)
    text = re.sub(r"\s*\n\s*", " ", text).strip()
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(words)}"', 1)


def _adapt_tag(tag: str, key: str, used: set[str]) -> str:
    """Adapt one tag to the page. Text between tags stays, even if it reads like part of a tag."""
    tag = re.sub(
        r' id="([^"]*)"', lambda found: f' id="{key}-{found[1]}"' if found[1] in used else "", tag
    )
    tag = re.sub(r"(href=\"|url\()#", rf"\g<1>#{key}-", tag)
    tag = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", tag)
    tag = re.sub(r' xmlns(:xlink)?="[^"]*"|xlink:(?=href)', "", tag)
    for value, name in VARIABLES.items():
        tag = tag.replace(value, name)
    return tag
