"""Make the pictures of the documentation: the graph of the stages, and the report of the demo.

    python -m docs.generate.pictures [--project FOLDER] [--page http://127.0.0.1:7860]

The project is one where `make run` has finished. The page is the one of `make web` there, if it
runs. Both are photographed by Chromium or Chrome.
"""

import argparse
import io
import os
import subprocess
import tempfile
from pathlib import Path

import networkx
from jinja2 import Template
from PIL import Image
from ruamel.yaml import YAML

IMAGES = Path("docs/images")
LIMIT = 200_000  # bytes of a picture
STEP, ROW, WIDTH, HEIGHT = 100, 64, 84, 36  # pixels: between columns and rows; of a box

SVG = Template(
    """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ width }} {{ height }}" \
width="{{ width }}" height="{{ height }}" font-family="sans-serif" role="img">
<title>The stages, and what each one needs</title>
<style>path, .frame { stroke: #888; fill: none } text { text-anchor: middle }</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" \
orient="auto"><path d="M0 0 8 4 0 8z" style="fill: #888"/></marker></defs>
<rect class="frame" x="{{ frame[0] }}" y="{{ frame[1] }}" width="{{ frame[2] }}" \
height="{{ frame[3] }}" rx="10" stroke-dasharray="4 4"/>
<text x="{{ frame[0] + frame[2] / 2 }}" y="{{ frame[1] - 6 }}" font-size="12" \
fill="#888">for each architecture</text>
{% for line in edges -%}
<path d="{{ line }}" stroke-width="1.5" marker-end="url(#tip)"/>
{% endfor -%}
{% for name, (x, y) in boxes.items() -%}
<rect x="{{ x }}" y="{{ y }}" width="{{ box[0] }}" height="{{ box[1] }}" rx="6" fill="#00796b"/>
<text x="{{ x + box[0] / 2 }}" y="{{ y + 23 }}" font-size="15" fill="#fff">{{ name }}</text>
{% endfor -%}
</svg>
"""
)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--project", type=Path, default=Path(), help="where the demo has run")
    parser.add_argument("--page", metavar="URL", help="address of a running `make web`")
    parser.add_argument("--browser", default="chromium", help="Chromium or Chrome")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "graph.svg").write_text(draw_graph(Path("dvc.yaml")))
    report = (options.project / "data/report/report.html").resolve().as_uri()
    for name, address, height in (("report", report, 915), ("page", options.page, 720)):
        if address:
            picture = photograph(address, height, options.browser)
            (IMAGES / f"{name}.png").write_bytes(shrink(picture))


def draw_graph(file: Path) -> str:
    """Return the stages of a `dvc.yaml` as SVG: one column for each step that has to wait."""
    stages = YAML(typ="safe").load(file)["stages"]
    graph = read_graph(stages)
    columns = [sorted(column) for column in networkx.topological_generations(graph)]
    rows = max(map(len, columns))
    places = {
        name: (8 + STEP * column, 30 + ROW * (row + (rows - len(names)) / 2))
        for column, names in enumerate(columns)
        for row, name in enumerate(names)
    }
    repeated = [places[name] for name, stage in stages.items() if "foreach" in stage]
    left, right = min(x for x, _ in repeated), max(x for x, _ in repeated)
    top, bottom = min(y for _, y in repeated), max(y for _, y in repeated)
    return SVG.render(
        width=STEP * len(columns),
        height=ROW * rows + 20,
        frame=(left - 6, top - 8, right - left + WIDTH + 12, bottom - top + HEIGHT + 16),
        boxes=places,
        box=(WIDTH, HEIGHT),
        edges=[_line(places[first], places[second]) for first, second in sorted(graph.edges)],
    )


def read_graph(stages: dict[str, dict]) -> networkx.DiGraph:
    """Return which stage needs which, without edges that follow from others."""
    made = [
        (path, name)
        for name, stage in stages.items()
        for path in _paths(stage, "outs", "metrics", "plots")
    ]
    graph = networkx.DiGraph()
    graph.add_nodes_from(stages)
    graph.add_edges_from(
        (maker, name)
        for name, stage in stages.items()
        for needed in _paths(stage, "deps")
        for path, maker in made
        if maker != name and os.path.commonpath([path, needed]) in (path, needed)
    )
    return networkx.transitive_reduction(graph)


def _paths(stage: dict, *kinds: str) -> list[str]:
    body = stage.get("do", stage)
    items = [item for kind in kinds for item in body.get(kind, [])]
    return [next(iter(item)) if isinstance(item, dict) else item for item in items]


def _line(first: tuple[float, float], second: tuple[float, float]) -> str:
    """Return the line from one box to another; one that passes boxes enters from below."""
    x, y, last_x, last_y = first[0] + WIDTH, first[1] + HEIGHT / 2, *second
    if last_x - first[0] > STEP:
        return f"M{x} {y} H{last_x + WIDTH / 2} V{last_y + HEIGHT}"
    return f"M{x} {y} {last_x} {last_y + HEIGHT / 2}"


def photograph(address: str, height: int, browser: str) -> Image.Image:
    """Return the top of a page as a browser shows it after ten seconds."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=10000",
            f"--user-data-dir={folder}/profile",
            f"--window-size=1000,{height}",
            f"--screenshot={picture}",
        ]
        subprocess.run([browser, *options, address], check=True, capture_output=True)
        return Image.open(picture).convert("RGB")


def shrink(picture: Image.Image) -> bytes:
    """Return a PNG file of few colours. Raises `ValueError` if it is too large."""
    buffer = io.BytesIO()
    picture.quantize(128).save(buffer, "PNG", optimize=True)
    if buffer.tell() > LIMIT:
        raise ValueError(f"expected at most {LIMIT} bytes, received {buffer.tell()}")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
