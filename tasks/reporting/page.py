"""Fill the templates: a page that needs no other file, and its short form in Markdown."""

import logging
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from tasks.reporting import svg
from tasks.reporting.language import ENGLISH, _, ngettext
from tasks.reporting.numbers import (
    allow_breaks,
    format_interval,
    format_number,
    is_blank,
    mark_interval,
    mark_number,
    mark_setting,
)
from tasks.reporting.words import name_class, name_values
from tasks.scoring.figures import CURVES
from tasks.tables import escape_controls

TEMPLATES = Path(__file__).parent / "templates"
# Markdown's special characters. An underscore within a word is a letter, and a list or a heading
# begins only at the start of a line.
MARKUP = re.compile(r"[\\`*\[\]<>|~$&!]|(?<![^\W_])_|_(?![^\W_])|^[-+#]|^\d+[.)](?=\s|$)")
PAGE, SHORT = "report.html", "report.md"

log = logging.getLogger(__name__)


def write(
    facts: dict[str, Any], folder: Path, name: str = "report", more: Path = TEMPLATES
) -> None:
    """Write report.html and report.md from the templates `<name>.html` and `<name>.md`.

    The templates are in `more`. They may include those of this package.
    """
    templates = Environment(
        loader=FileSystemLoader([more, TEMPLATES]),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    templates.install_gettext_callables(_, ngettext, newstyle=True)  # type: ignore[attr-defined]  # the extension adds it
    functions = {
        "number": mark_number,
        "setting": mark_setting,
        "interval": mark_interval,
        "breakable": allow_breaks,
        "panel": draw_panel,
        "is_blank": is_blank,
        "word": _,
        "named": name_class,
        "curves": CURVES,
    }
    templates.filters["named"] = name_class
    facts = {"language": ENGLISH} | name_values() | facts
    html = templates.get_template(f"{name}.html").render(facts | functions)
    # A carriage return in a name: a browser would read it as a line feed.
    _write(folder / PAGE, html.replace("\r", "&#13;"))
    plain = templates.overlay(finalize=escape_markdown)
    texts = {"text": format_number, "interval": format_interval, "word": _, "named": name_class}
    _write(folder / SHORT, plain.get_template(f"{name}.md").render(facts | texts))


def escape_markdown(value: object) -> object:
    """Return a text that Markdown shows as it is, on one line.

    GitHub turns `@name`, `#1` and `:cat:` into people, pull requests and emoji, even after a
    backslash. A comment between the characters prevents that.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = MARKUP.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", escape_controls(value))
    return re.sub(r"[@#:](?=\w)", r"\g<0><!-- -->", text)


def draw_panel(drawn: svg.Drawn, key: str) -> Markup:
    """Return a figure as part of the page. `key` keeps its ids different from other figures'."""
    return Markup(svg.inline(drawn.svg, key, drawn.words))


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    log.info("%s, %s bytes", file, f"{file.stat().st_size:,}")
