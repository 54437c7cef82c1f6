"""Every file gets an answer or an error: in order, in batches, with thresholds applied."""

import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.fuzz import mutant
from tasks.errors import UserError
from tasks.imaging.decode import decode_bytes
from tasks.imaging.picture import REASONS, Limits
from tasks.imaging.render import render
from tasks.inference.predictor import (
    BATCH,
    Answer,
    Predictor,
    Thresholds,
    from_folder,
    read_thresholds,
)
from tasks.modeling import saved
from tasks.params.model_input import Form
from tests.imaging.test_decode import bomb, encode, samples
from tests.support import toy_model
from tests.support.draw import draw_head
from tests.support.toy_model import CLASSES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a model with random weights."""
    return toy_model.write(tmp_path_factory.mktemp("models") / "random", 3)


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return from_folder(folder, "random", "0" * 64)


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    """Files of 150 images, in colours and grey, and among them three that are none."""
    forms = list(samples().values())
    heads = [
        encode(draw_head("glioma_tumor", np.random.default_rng(number), 40), "PNG")
        for number in range(150 - len(forms))
    ]
    return [*heads[:70], b"text", *heads[70:], b"", *forms, forms[0][:50]]


def knowing(probabilities: list[float], distance: float, **more: object) -> Predictor:
    """Return a predictor with the same answer for every image."""
    row = np.array(probabilities, np.float32)
    classes = [f"class {number}" for number in range(len(row))]

    def answer(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.tile(row, (len(pixels), 1)), np.full(len(pixels), distance)

    return Predictor("knowing", "", classes, (Form((2, 2), 1),), answer, **more)


def test_every_file_gets_its_own_answer_or_a_reason(
    folder: Path, predictor: Predictor, contents: list[bytes]
) -> None:
    answers = predictor.predict(contents)
    assert [answer.error for answer in answers].count(None) == len(
        contents
    ) - 4  # float pixels have no meaning either
    assert answers[70].error == "not_an_image: a text file" and answers[70].predicted is None
    model = saved.load(folder)
    for content, answer in zip(contents, answers, strict=True):
        if answer.error is None:
            (alone,), (distance,) = model.answer(
                render(decode_bytes(content), *model.forms)[np.newaxis]
            )
            assert np.abs(np.array(list(answer.probabilities.values())) - alone).max() < 1e-5
            assert answer.distance == pytest.approx(float(distance), abs=1e-4)
            assert answer.predicted == CLASSES[alone.argmax()] and answer.confidence == max(
                answer.probabilities.values()
            )
            assert list(answer.probabilities) == CLASSES


def test_paths_and_bytes_are_alike(
    predictor: Predictor, contents: list[bytes], tmp_path: Path
) -> None:
    files = [tmp_path / str(number) for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    assert predictor.predict(files) == predictor.predict(contents)


def test_no_more_than_two_batches_are_held(predictor: Predictor, contents: list[bytes]) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield contents[0]

    answers = predictor.stream(endless())
    for number in range(5 * BATCH):
        next(answers)
        assert taken <= (number // BATCH + 2) * BATCH
    answers.close()


def test_threads_share_a_predictor(predictor: Predictor, contents: list[bytes]) -> None:
    expected = predictor.predict(contents[:20])
    at_work, most = 0, 0
    lock = threading.Lock()

    def answer(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        result = predictor.answer(pixels)
        with lock:
            at_work -= 1
        return result

    shared = replace(predictor, answer=answer)
    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(lambda _: shared.predict(contents[:20]), range(8)):
            assert answers == expected
    assert most == 1


@pytest.mark.parametrize(
    ("thresholds", "abstained", "unfamiliar"),
    [
        (Thresholds(), None, None),
        (Thresholds(confidence=0.8), True, None),
        (Thresholds(confidence=0.5), False, None),
        (Thresholds(distance=1.5), None, True),
        (Thresholds(distance=2.0), None, False),
    ],
)
def test_thresholds_judge(
    thresholds: Thresholds, abstained: bool | None, unfamiliar: bool | None, contents: list[bytes]
) -> None:
    (answer,) = knowing([0.25, 0.75], 2.0, thresholds=thresholds).predict(contents[:1])
    assert (answer.abstained, answer.unfamiliar, answer.distance) == (abstained, unfamiliar, 2.0)
    assert answer.predicted == "class 1"  # also where it abstains


def test_a_model_without_distances_calls_nothing_familiar(contents: list[bytes]) -> None:
    (answer,) = knowing([1.0], np.nan, thresholds=Thresholds(distance=1.0)).predict(contents[:1])
    assert answer.distance is None and answer.unfamiliar is None


def test_a_record_is_flat(contents: list[bytes]) -> None:
    model = knowing([0.25, 0.75], 2.0, thresholds=Thresholds(0.5, 1.0))
    good, bad = map(model.record, model.predict([contents[0], b""]))
    assert good == {
        "predicted": "class 1",
        "confidence": 0.75,
        "abstained": False,
        "unfamiliar": True,
        "distance": 2.0,
        "p_class 0": 0.25,
        "p_class 1": 0.75,
        "error": None,
    }
    assert list(bad) == list(good) == model.columns and bad["error"] == "empty: 0 bytes"
    assert {value for column, value in bad.items() if column != "error"} == {None}


def test_a_record_of_many_classes_has_the_best(contents: list[bytes]) -> None:
    model = knowing([0.1, 0.2, 0.4, 0.3], np.nan, top=3)
    good, bad = map(model.record, model.predict([contents[0], b""]))
    assert list(bad) == list(good) == model.columns
    assert [good[column] for column in ("predicted", "second", "third")] == [
        "class 2",
        "class 3",
        "class 1",
    ]
    assert good["p_second"] == pytest.approx(0.3) and good["p_third"] == pytest.approx(0.2)


def test_what_is_no_regular_file_is_not_read(predictor: Predictor, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    answers = predictor.predict(
        [tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "nowhere"]
    )
    assert [answer.error for answer in answers] == [
        "unreadable: no regular file",
        "unreadable: no regular file",
        "unreadable: a folder that cannot be listed",
        "unreadable: No such file or directory",
    ]


def test_limits_hold_for_paths_and_bytes(
    predictor: Predictor, contents: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "image.png").write_bytes(contents[0])
    small = replace(predictor, limits=Limits(max_bytes=10))
    assert {answer.error for answer in small.predict([contents[0], tmp_path / "image.png"])} == {
        f"too_many_bytes: {len(contents[0]):,} bytes, allowed are 10"
    }


def test_a_bomb_gets_a_reason(predictor: Predictor) -> None:
    (answer,) = predictor.predict([bomb(30_000)])
    assert answer.error.startswith("too_many_pixels: ")


def test_damaged_files_get_an_answer_or_a_reason(predictor: Predictor) -> None:
    """A few of those that `python -m bench.fuzz` makes."""
    originals = list(samples().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's
        answers = predictor.predict(mutant(originals, 1, number) for number in range(400))
    reasons = [answer.error.partition(":")[0] for answer in answers if answer.error]
    assert len(answers) == 400 and 50 < len(reasons) < 350 and set(reasons) <= set(REASONS)


def test_thresholds_are_read_as_evaluate_wrote_them(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text('{"confidence": 0.7, "distance": null, "val_accuracy": 0.9}')
    assert read_thresholds(file) == Thresholds(0.7, None)
    for damaged in ('{"confidence": 0.7}', '{"confidence": "high", "distance": 1}', "[]", "{"):
        file.write_text(damaged)
        with pytest.raises(
            UserError,
            match=r"thresholds.json: expected numbers or null for confidence and distance",
        ):
            read_thresholds(file)


def test_an_identity_tells_all_that_answers_depend_on(predictor: Predictor) -> None:
    others = [replace(predictor, sha256="1" * 64), replace(predictor, thresholds=Thresholds(0.5))]
    assert len({one.identity for one in [predictor, *others]}) == 3
    assert replace(predictor, name="another").identity == predictor.identity


def test_an_answer_with_an_error_says_nothing_else() -> None:
    assert Answer("") == Answer("", None, None, {}, None, None, None, None)
