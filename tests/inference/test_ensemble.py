"""An ensemble's folder answers as its members do, each with the pixels that it takes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.errors import UserError
from tasks.imaging.decode import decode_file
from tasks.imaging.render import render
from tasks.inference import ensemble, gradcam, predictor
from tasks.inference.ensemble import Combination
from tasks.modeling import saved, temperature
from tasks.params.model_input import Form, shape_of
from tests.support import toy_model

pytestmark = pytest.mark.slow

DEGREES = 0.8


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write networks for grey images, for colours, and for grey images without a dark border."""
    root = tmp_path_factory.mktemp("members")
    written = {
        name: toy_model.write(root / name, channels)
        for name, channels in (("grey", 1), ("colours", 3), ("cut", 1))
    }
    saved.describe(written["cut"], toy_model.CLASSES, Form(toy_model.SIZE, 1, 30), ["mirrored"])
    return written


@pytest.fixture
def folder(members: dict[str, Path], tmp_path: Path) -> Path:
    ensemble.save(
        Combination("soft", {"grey": 0.5, "colours": 0.3, "cut": 0.2}),
        DEGREES,
        members,
        tmp_path / "all",
    )
    return tmp_path / "all"


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Coloured noise with a black border, of three sizes."""
    rng, files = np.random.default_rng(1), []
    for number, side in enumerate((40, 64, 90)):
        pixels = rng.integers(40, 255, (side, side + 7, 3), dtype=np.uint8)
        pixels[: side // 4] = 0
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def test_each_member_is_asked_with_its_own_pixels(
    folder: Path, members: dict[str, Path], pictures: list[Path]
) -> None:
    whole = ensemble.load(folder)
    assert [form.shape for form in whole.forms] == [
        (20, 16, 1),
        (20, 16, 3),
        (20, 16, 1),
    ] and whole.classes == toy_model.CLASSES
    decoded = [decode_file(file) for file in pictures]
    probabilities, distances = whole.answer(
        np.stack([render(picture, *whole.forms) for picture in decoded])
    )
    means, far = 0, 0
    for (name, weight), form in zip(
        {"grey": 0.5, "colours": 0.3, "cut": 0.2}.items(), whole.forms, strict=True
    ):
        alone = saved.load(members[name])
        assert alone.forms == (form,)
        shares, away = alone.answer(np.stack([render(picture, form) for picture in decoded]))
        means, far = means + weight * shares.astype(float), far + weight * away
    np.testing.assert_allclose(probabilities, temperature.apply(means, DEGREES), atol=1e-6)
    np.testing.assert_allclose(distances, far, atol=1e-6)


def test_members_of_one_form_share_its_pixels(members: dict[str, Path], tmp_path: Path) -> None:
    twice = {"one": members["grey"], "two": members["grey"]}
    ensemble.save(Combination("majority", {"one": 0.5, "two": 0.5}), 1.0, twice, tmp_path / "both")
    both = ensemble.load(tmp_path / "both")
    assert both.forms == (Form(toy_model.SIZE, 1),) and shape_of(both.forms) == (20, 16, 1)
    pixels = np.random.default_rng(0).integers(0, 255, (5, 20, 16, 1), dtype=np.uint8)
    assert (
        both.predict(pixels).argmax(axis=1).tolist()
        == saved.load(members["grey"]).predict(pixels).argmax(axis=1).tolist()
    )


def test_files_are_answered_alone_as_in_a_batch(folder: Path, pictures: list[Path]) -> None:
    asked = predictor.from_folder(folder, "committee", "")
    asked.warm_up()
    together = asked.predict([*pictures, b"a text"])
    assert together[-1].error.startswith("not_an_image")
    for file, answer in zip(pictures, together, strict=False):
        (alone,) = asked.predict([file.read_bytes()])
        assert alone.probabilities == pytest.approx(answer.probabilities, abs=1e-5)
    assert asked.picture(pictures[0].read_bytes()).size == (47, 40)


def test_it_has_no_heat_map_of_its_own(folder: Path) -> None:
    with pytest.raises(
        gradcam.NoHeatMapError,
        match="an ensemble has no heat map of its own; ask one of its members",
    ):
        gradcam.load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vote": "loud"}, "expected vote and weights, as the stage combine wrote them"),
        ({"weights": {}}, "expected vote and weights"),
        ({"weights": {"../grey": 1}}, "expected vote and weights"),
        ({"weights": {"nobody": 1.0}}, "is missing"),
    ],
)
def test_files_that_do_not_fit_are_refused(folder: Path, change: dict, words: str) -> None:
    file = folder / ensemble.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=words):
        ensemble.load(folder)


def test_a_member_of_other_classes_is_refused(folder: Path) -> None:
    (folder / "classes.json").write_text(json.dumps(toy_model.CLASSES[::-1]))
    with pytest.raises(
        UserError,
        match="classes of grey are zebra, NA, tumeur née, but the classes of the ensemble are",
    ):
        ensemble.load(folder)


def test_pixels_of_another_shape_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="expected uint8 pixels of shape"):
        ensemble.load(folder).answer(np.zeros((1, 20, 16, 1), np.uint8))
