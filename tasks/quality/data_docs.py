"""The results of the expectations: as `validation.json`, and as a page for a person."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from tasks.quality.scan import Scan
from tasks.tables import escape_controls

TEMPLATES = Path(__file__).parent / "templates"
PAGE = "index.html"
SHOWN = 200  # offenders of an expectation on the page; validation.json has all of them


@dataclass(frozen=True)
class Offender:
    """A file or a class that does not meet an expectation, and the value that it has instead."""

    name: str
    value: str


@dataclass(frozen=True)
class Result:
    """The result of one expectation."""

    expectation: str  # its key in params.yaml
    level: str  # error, warn or off
    met: bool | None  # None if it is off
    wanted: str
    found: str
    message: str = ""
    offenders: tuple[Offender, ...] = ()

    @property
    def state(self) -> str:
        """Met, error, warning or off, for a person."""
        if self.met is None:
            return "off"
        return "met" if self.met else {"warn": "warning"}.get(self.level, self.level)


def write_results(results: Sequence[Result], file: Path) -> None:
    """Write the results of all expectations that are not off as JSON."""
    checked: list[dict[str, Any]] = [
        {
            "expectation": result.expectation,
            "level": result.level,
            "met": result.met,
            "message": result.message,
            "offenders": [offender.name for offender in result.offenders],
        }
        for result in results
        if result.met is not None
    ]
    file.write_text(json.dumps(checked, indent=2) + "\n")


def write_page(found: Scan, results: Sequence[Result], folder: Path) -> None:
    """Write one page that needs no other file, with all expectations and who does not meet them."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["printable"] = escape_controls
    states = [result.state for result in results]
    page = templates.get_template("data_docs.html").render(
        results=results,
        count={state: states.count(state) for state in ("met", "warning", "error", "off")},
        files=found.files.status.value_counts().to_dict(),
        classes=len(set(found.files.label) - {""}),
        bits=found.bits,
        shown=SHOWN,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(page, encoding="utf-8")
