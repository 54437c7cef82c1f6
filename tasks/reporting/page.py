"""Facts and templates to the two documents: a page that needs nothing beside it, and its short form."""

import logging
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from tasks.reporting.numbers import breakable, interval, number, setting, told, told_interval
from tasks.scoring import figures
from tasks.tables import printable

TEMPLATES = Path(__file__).parent / "templates"
# What Markdown reads: an underscore within a word is one of its letters, and a list begins at the begin alone.
MARKUP = re.compile(r"[\\`*\[\]<>|~$&!]|(?<![^\W_])_|_(?![^\W_])|^[-+#]|^\d+[.)](?=\s|$)")
PAGE, SHORT = "report.html", "report.md"

log = logging.getLogger(__name__)


def write(
    facts: dict[str, Any], folder: Path, name: str = "report", more: Path = TEMPLATES
) -> None:
    """Fill the templates `<name>.html` and `<name>.md`, as `report.html` and `report.md` in `folder`.

    Templates lie in `more` and in this room, whose parts they may include.
    """
    templates = Environment(
        loader=FileSystemLoader([more, TEMPLATES]),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plain = templates.overlay(finalize=escape_markdown)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {
        "number": number,
        "setting": setting,
        "interval": interval,
        "panel": panel,
        "breakable": breakable,
    }
    for file, words in (
        (PAGE, numbers | {"curves": figures.CURVES}),
        (SHORT, {"told": told, "interval": told_interval}),
    ):
        text = (
            (plain if file == SHORT else templates)
            .get_template(f"{name}{Path(file).suffix}")
            .render(facts | words)
        )
        if file == PAGE:
            text = text.replace(
                "\r", "&#13;"
            )  # of a name; as it is, readers would make a line feed of it
        (folder / file).write_text(text, encoding="utf-8")
        log.info("%s, %s bytes", folder / file, f"{(folder / file).stat().st_size:,}")


def escape_markdown(value: object) -> object:
    """Return a text so that Markdown shows it as it is, on one line: no emphasis, table, link, formula or list begins in it.

    GitHub takes `@name`, `#1` and `:cat:` for people, pull requests and emoji, also behind a backslash: a comment parts them.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = MARKUP.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", printable(value))
    return re.sub(r"[@#:](?=\w)", r"\g<0><!-- -->", text)


def panel(drawn: figures.Drawn, key: str) -> Markup:
    """Return a figure as a part of the page; `key` keeps its ids apart from those of others."""
    return Markup(figures.inline(drawn.svg, key, drawn.words))
