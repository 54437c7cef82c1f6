"""The documentation: it builds strictly, asks no other host, and has what the code has."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support import ROOT

LOADED = {"img": "src", "script": "src", "iframe": "src", "link": "href", "source": "src"}
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the documentation as `make docs` does, without a network."""
    folder = tmp_path_factory.mktemp("site")
    offline = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


class Loaded(HTMLParser):
    """The addresses that a browser loads when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in LOADED and values.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(values.get(LOADED[tag]) or "")


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        found = Loaded()
        found.feed(page.read_text())
        styles = re.findall(r"url\([\"']?([^)\"']+)|@import", page.read_text())
        foreign = [address for address in found.addresses + styles if _is_foreign(address)]
        assert not foreign, f"{page.relative_to(site)} loads {foreign}"


@pytest.mark.slow
def test_no_style_or_script_of_ours_loads_anything_from_another_host(site: Path) -> None:
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)[^;)]*//", style.read_text()), style
    for script in (site / "assets").glob("*.js"):
        assert "://" not in script.read_text(), script


@pytest.mark.slow
def test_the_reference_has_every_section_target_and_route(site: Path) -> None:
    params, commands, rest = (
        (site / f"reference/{page}.html").read_text() for page in ("params", "commands", "rest")
    )
    for section in re.findall(r"(?m)^(\w+):", (ROOT / "params.yaml").read_text()):
        assert f'<h2 id="{section}">' in params
    assert "<code>near_copies.<wbr>correlation</code>" in params
    assert "number (above 0, at most 1)" in params
    for target in re.findall(r"(?m)^([a-z]+):.*## ", (ROOT / "Makefile").read_text()):
        assert f"<code>make {target}</code>" in commands
    assert "<code>--time-limit</code>" in commands
    for page in (params, commands, rest):
        assert "<td></td>" not in page, "a key, an option or a setting has no meaning"
    for route in ("POST /predict", "POST /explain", "GET /model", "GET /ready"):
        assert f"<code>{route}</code>" in rest
    assert "<code>API_REQUEST_FILES</code>" in rest


@pytest.mark.slow
def test_the_reference_describes_each_table_of_the_stages(site: Path) -> None:
    tables = (site / "reference/tables.html").read_text()
    paths = set(re.findall(r"[\w$/{}]+\.csv", (ROOT / "dvc.yaml").read_text()))
    shown = {path.replace("${key}", "&lt;architecture&gt;") for path in paths}
    assert len(shown) > 10
    assert {path for path in shown if path not in tables} == set()


@pytest.mark.slow
def test_the_search_works_in_pages_that_were_opened_from_disk(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert "assets/iframe-worker.js" in page
    assert (site / "search/search_index.js").read_text().startswith("var __index = {")


def test_the_readme_is_short_has_both_commands_and_no_dead_link() -> None:
    assert len(README.split()) <= 900
    assert re.search(r"^make run ", README, re.MULTILINE)
    assert re.search(r"^make test ", README, re.MULTILINE)
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_every_recipe_deployment_and_room_is_described() -> None:
    stages = re.findall(r"(?m)^  (\w+):$", (ROOT / "dvc.yaml").read_text())
    pages = {
        "docs/how-to/architectures.md": {path.stem for path in (ROOT / "recipes").glob("*.yaml")},
        "docs/operations/running.md": set(
            re.findall(r"(?m)^  - name: (\S+)", (ROOT / "prefect.yaml").read_text())
        ),
        "docs/developing.md": {
            f"{path.parent.relative_to(ROOT)}/" for path in ROOT.glob("tasks/*/__init__.py")
        }
        | {f"tasks/{path.name}" for path in ROOT.glob("tasks/[a-z]*.py")}
        - {f"tasks/{stage}.py" for stage in stages},
    }
    for page, names in pages.items():
        text = (ROOT / page).read_text()
        assert len(names) > 3
        assert {name for name in names - {"base"} if f"{name}`" not in text} == set(), page


def test_pictures_are_small() -> None:
    pictures = [path for path in (ROOT / "docs/images").iterdir() if path.is_file()]
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > 200_000] == []


def _is_foreign(address: str) -> bool:
    return address.startswith("//") or bool(re.match(r"[a-z]+://", address))
