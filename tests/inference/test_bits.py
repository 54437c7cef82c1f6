"""Scans of 12 bits in 16-bit files give the same pixels in training and in serving."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.predict import print_predictions, summarise
from serving.web import SETTINGS
from tasks.imaging.arrays import load_pixels
from tasks.inference.predictor import from_folder
from tasks.modeling import saved
from tasks.params.model_input import DEFAULT_LIMITS, Limits
from tasks.registry.load import load_predictor
from tasks.tables import read_table
from tests.support import toy_model
from tests.support.pipeline import enter, run_stage

PARAMS = """
validate: {max_pixels: 150_000_000, expectations: {images_per_class: {minimum: 1, level: warn}}}
split: {validation: 0.3}
train: {image_size: 16, channels: 1, epochs: 1, batch_size: 8}
architectures: {plain: {like: plain_cnn, filters: [2], dense: [4]}}
"""
BRIGHT = "Testing/cat/0.png"


def draw_scans(raw: Path) -> None:
    """Grey pictures of 12 bits; in one test image a part has 14."""
    rng = np.random.default_rng(0)
    for part, count in (("Training", 8), ("Testing", 2)):
        for label in ("cat", "dog"):
            (raw / part / label).mkdir(parents=True)
            for number in range(count):
                coarse = Image.fromarray(rng.integers(0, 256, (5, 6), dtype=np.uint8)).resize(
                    (40, 36), Image.Resampling.BICUBIC
                )
                values = (np.asarray(coarse).astype(int) * 4095 // 255).astype(np.uint16)
                values[0, 0] = 4095
                if f"{part}/{label}/{number}.png" == BRIGHT:
                    values[:9] = 16_000
                Image.fromarray(values).save(raw / part / label / f"{number}.png")


@pytest.mark.slow
def test_the_range_of_the_training_images_goes_from_validation_to_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(tmp_path, monkeypatch)
    (tmp_path / "params.yaml").write_text(PARAMS)
    draw_scans(Path("data/raw"))
    for stage in ("validate", "clean", "split", "weigh", "train@plain"):
        run_stage(stage)
    assert json.loads(Path("data/decoding.json").read_text()) == {
        "bits": 12
    }  # a new limit retrains nothing
    files = read_table(Path("data/files.csv")).set_index("path")
    assert files.levels.min() > 100 and files.peak.max() == 16_000
    assert (
        files.detail[BRIGHT].endswith("they are white (25.00%)")
        and (files.detail.drop(BRIGHT) == "").all()
    )

    model = from_folder(Path("data/models/plain"), "plain", "")
    assert model.forms[0].bits == 12
    assert load_predictor("data/models/plain").limits == Limits(100_000_000, 150_000_000)
    splits = read_table(Path("data/splits.csv"))
    trained = load_pixels(Path("data/clean"), splits.path, splits.sha256, model.forms[0])
    served = [model.decode(Path("data/clean", path)) for path in splits.path]
    assert np.array_equal(trained, np.stack([one.pixels for one in served]))
    assert {
        path: one.clipped for path, one in zip(splits.path, served, strict=True) if one.clipped
    } == {BRIGHT: 0.25}
    assert trained.std() > 30  # and not 16 dark shades
    counts = print_predictions(
        model, [Path("data/raw", BRIGHT), Path("data/raw/Testing/cat/1.png")]
    )
    assert "1 with pixels brighter than in any training image" in summarise(counts, 2, model)


def test_a_model_from_before_takes_all_values_as_sixteen_bits(tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text(
        '{"image_size": [8, 8], "channels": 1, "dark_border": null, "detail": null}'
    )
    form, test_views = saved.read_input(tmp_path)
    assert (form.bits, test_views) == (None, ())


@pytest.mark.slow
def test_a_file_may_cost_what_both_params_and_a_server_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(tmp_path, monkeypatch)
    folder = str(toy_model.write(tmp_path / "data/models/random", 1))
    for pixels in (1_000, 150_000_000):
        Path("params.yaml").write_text(PARAMS.replace("150_000_000", str(pixels)))
        assert load_predictor(folder).limits == Limits(100_000_000, pixels)
        assert load_predictor(folder, limits=SETTINGS.limits).limits == Limits(
            25_000_000, min(pixels, 64_000_000)
        )
    Path("params.yaml").unlink()
    assert load_predictor(folder).limits == DEFAULT_LIMITS
