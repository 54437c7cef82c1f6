"""The command line: its files, the table, and a CSV whose bytes an interruption does not change."""

import csv
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving import predict
from tasks.errors import UserError
from tasks.imaging.decode import decode
from tasks.inference import gradcam
from tasks.inference.predictor import BATCH, Predictor, Thresholds, from_folder
from tests.support import ROOT, toy_model
from tests.support.draw import LABELS, draw_set
from tests.support.toy_model import CLASSES, SIZE

BROKEN = {"b/text.txt": b"text", "empty.jpg": b""}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model.write(tmp_path_factory.mktemp("project") / "models/random", 1)


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return from_folder(model, "random", "0" * 64)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return three batches of images, and two files that are no images."""
    root = tmp_path_factory.mktemp("drawn")
    draw_set(root, {"": dict.fromkeys(LABELS, 3 * BATCH // 4 - 2)}, size=24)
    for name, content in BROKEN.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def whole(predictor: Predictor, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the output of an uninterrupted run."""
    output = tmp_path_factory.mktemp("whole") / "predictions.csv"
    predict.write_csv(predictor, predict.list_files([drawn]), output)
    return output.read_bytes()


def counting(predictor: Predictor, asked: list[int], until: int | None = None) -> Predictor:
    """Return a predictor that appends the size of each batch, interrupted after `until` batches."""

    def answer(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(asked) == until:
            raise KeyboardInterrupt
        asked.append(len(pixels))
        return predictor.answer(pixels)

    return replace(predictor, answer=answer)


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(content.decode().splitlines()))


def command(*words: str) -> int:
    return predict.run(predict.parse(words))


def test_every_file_has_a_row(predictor: Predictor, drawn: Path, whole: bytes) -> None:
    rows = table(whole)
    assert [row["path"] for row in rows] == sorted(
        path.as_posix() for path in drawn.rglob("*") if path.is_file()
    )
    assert list(rows[0]) == ["path", "sha256", *predictor.columns, "model"]
    assert {
        row["path"].removeprefix(f"{drawn}/"): row["error"].partition(":")[0]
        for row in rows
        if row["error"]
    } == {
        "b/text.txt": "not_an_image",
        "empty.jpg": "empty",
    }
    for row in [row for row in rows if not row["error"]]:
        probabilities = [float(row[f"p_{label}"]) for label in CLASSES]
        assert (
            float(row["confidence"]) == max(probabilities)
            and row["predicted"] == CLASSES[np.argmax(probabilities)]
        )
        assert sum(probabilities) == pytest.approx(1, abs=1e-5) and float(row["distance"]) > 0


def test_an_interrupted_run_goes_on(
    predictor: Predictor, drawn: Path, whole: bytes, tmp_path: Path
) -> None:
    output, asked = tmp_path / "predictions.csv", []
    with pytest.raises(KeyboardInterrupt):
        predict.write_csv(counting(predictor, [], until=1), predict.list_files([drawn]), output)
    assert len(table(output.read_bytes())) == BATCH
    predict.write_csv(counting(predictor, asked), predict.list_files([drawn]), output)
    assert output.read_bytes() == whole and len(asked) == 2


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_a_half_written_line_is_written_again(
    share: float, predictor: Predictor, drawn: Path, whole: bytes, tmp_path: Path
) -> None:
    output, asked = tmp_path / "predictions.csv", []
    output.write_bytes(whole[: int(share * len(whole))])
    predict.write_csv(counting(predictor, asked), predict.list_files([drawn]), output)
    assert output.read_bytes() == whole and len(asked) == 3 - int(share * 3)


def test_finished_files_are_not_predicted_again(
    predictor: Predictor, drawn: Path, whole: bytes, tmp_path: Path
) -> None:
    output, asked = tmp_path / "predictions.csv", []
    output.write_bytes(whole)
    predict.write_csv(counting(predictor, asked), predict.list_files([drawn]), output)
    assert output.read_bytes() == whole and not asked


KILLED = """
import os, signal
from serving import predict, rows

append = rows.Rows.append

def append_and_die(*arguments):
    append(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

rows.Rows.append = append_and_die
predict.main()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(
    model: Path, drawn: Path, whole: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kill -9` after the first batch is written."""
    output = tmp_path / "predictions.csv"
    words = [str(drawn), "--model", str(model), "--output", str(output)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *words], cwd=ROOT, stderr=subprocess.DEVNULL, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert 0 < len(table(output.read_bytes())) < len(table(whole))
    assert command(*words) == predict.UNANSWERED
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(f"186 files, 184 predicted by {model}, 2 without a prediction")
    )
    strip = [{**row, "model": ""} for row in table(whole)]
    assert [{**row, "model": ""} for row in table(output.read_bytes())] == strip


def test_another_model_predicts_all_files_again(
    predictor: Predictor, drawn: Path, whole: bytes, tmp_path: Path
) -> None:
    output, asked = tmp_path / "predictions.csv", []
    output.write_bytes(whole)
    other = replace(counting(predictor, asked), thresholds=Thresholds(confidence=2.0))
    counts = predict.write_csv(other, predict.list_files([drawn]), output)
    rows = table(output.read_bytes())
    assert len(asked) == 3 and len(rows) == 186 and len({row["model"] for row in rows}) == 1
    assert counts["abstained"] == 184 == [row["abstained"] for row in rows].count("true")


def test_a_changed_file_is_predicted_again_and_other_rows_stay(
    predictor: Predictor, drawn: Path, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for seed, file in enumerate(files):
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (30, 30, 3), np.uint8)).save(
            file
        )
    output, asked = tmp_path / "predictions.csv", []
    predict.write_csv(predictor, files, output)
    files[1].write_bytes(files[0].read_bytes())
    predict.write_csv(counting(predictor, asked), files[1:], output)
    first, second = table(output.read_bytes())
    assert asked == [1] and first["sha256"] == second["sha256"] and first["path"] != second["path"]


def test_an_unreadable_file_is_tried_again(
    predictor: Predictor, drawn: Path, tmp_path: Path
) -> None:
    file, output = tmp_path / "image.jpg", tmp_path / "predictions.csv"
    predict.write_csv(predictor, [file], output)
    assert table(output.read_bytes())[0]["error"] == "unreadable: No such file or directory"
    file.write_bytes(next(drawn.rglob("*_0000.jpg")).read_bytes())
    assert (
        not predict.write_csv(predictor, [file], output)
        and not table(output.read_bytes())[0]["error"]
    )


def test_a_foreign_file_is_refused_and_unchanged(
    predictor: Predictor, drawn: Path, tmp_path: Path
) -> None:
    output = tmp_path / "notes.csv"
    output.write_text("my notes\n1,2,3\n")
    with pytest.raises(
        UserError,
        match=r"(?s)notes.csv is not an output of this model: expected the columns .*'my notes'",
    ):
        predict.write_csv(predictor, predict.list_files([drawn]), output)
    assert output.read_text() == "my notes\n1,2,3\n"


def test_two_runs_cannot_write_one_file(predictor: Predictor, drawn: Path, tmp_path: Path) -> None:
    with (tmp_path / "predictions.csv").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"predictions.csv is being written by another run"):
            predict.write_csv(predictor, predict.list_files([drawn]), tmp_path / "predictions.csv")


def test_a_folder_gives_every_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "a.txt", ".hidden", ".git/x", "out.csv", "seen/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/loop").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    files = predict.list_files(
        [Path("b/2.jpg"), tmp_path, Path("b/2.jpg"), Path("nowhere.jpg")],
        [Path("out.csv"), Path("seen")],
    )
    assert files == [
        Path("b/2.jpg"),
        *(tmp_path / name for name in ("a.txt", "b/1.jpg", "b/2.jpg")),
        Path("nowhere.jpg"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: expected image files, found none"):
        predict.list_files([tmp_path / "empty"])


def test_a_name_that_is_not_utf_8_stays_on_one_line(
    predictor: Predictor, drawn: Path, tmp_path: Path
) -> None:
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b'/na\xffme\n,".jpg'))
    strange.write_bytes(next(drawn.rglob("*_0000.jpg")).read_bytes())
    output = tmp_path / "predictions.csv"
    for _ in range(2):
        predict.write_csv(predictor, [strange], output)
    (row,) = table(output.read_bytes())
    assert row["path"] == f'{tmp_path}/na\\udcffme\\n,".jpg' and row["predicted"] in CLASSES


def test_a_table_on_the_terminal(
    model: Path, drawn: Path, whole: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    image, text = next(drawn.rglob("glioma*_0000.jpg")), drawn / "b/text.txt"
    assert command(str(image), str(text), "--model", str(model)) == predict.UNANSWERED
    printed = capsys.readouterr()
    head, first, second = printed.out.splitlines()
    assert head.split() == ["path", "predicted", "confidence", "p_zebra", "p_NA", "p_tumeur", "née"]
    row = next(row for row in table(whole) if row["path"] == str(image))
    assert (
        first.split()[0] == str(image)
        and f"{row['predicted']}  " in first
        and f"{float(row['confidence']):.3f}" in first
    )
    assert second.split(maxsplit=1) == [str(text), "not_an_image: a text file"]
    assert printed.err == f"2 files, 1 predicted by {model}, 1 without a prediction\n"


def test_the_table_shows_doubts(
    predictor: Predictor, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return predictor.answer(pixels)[0], np.zeros(len(pixels))

    strict = replace(predictor, thresholds=Thresholds(1.1, -1.0), answer=answer)
    counts = predict.print_predictions(strict, [next(drawn.rglob("*_0000.jpg"))])
    assert capsys.readouterr().out.splitlines()[1].endswith("  abstained, unfamiliar")
    told = predict.summarise(counts, 1, strict)
    assert (
        told
        == "1 file, 1 predicted by random, 1 too unsure to rely on, 1 unlike the training images"
    )


def test_a_terminal_shows_two_classes_by_their_names_and_the_doubts(
    predictor: Predictor, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list[str]] = []
    monkeypatch.setattr(predict, "is_terminal", lambda: True)
    monkeypatch.setattr(predict, "print_table", lambda columns, rows: shown.extend(rows))
    image = next(drawn.rglob("*_0000.jpg"))
    named = replace(predictor, class_names={label: label.upper() for label in CLASSES})
    predict.print_predictions(replace(named, thresholds=Thresholds(1.1)), [image, drawn / "none"])
    good, bad = shown
    (answer,) = predictor.predict([image])
    best = sorted(answer.probabilities, key=lambda label: -answer.probabilities[label])
    second = f"{best[1].upper()} {100 * answer.probabilities[best[1]]:.1f} %"
    share = f"{100 * answer.confidence:.1f} %"
    assert good[1:] == [best[0].upper(), share, second, "too unsure"]
    assert bad[1:] == ["", "", "", "unreadable: No such file or directory"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["image.jpg", "--model", "data/nowhere"],
            "data/nowhere is not a folder: expected one that training wrote",
        ),
        (["image.jpg", "--name", "heads"], "is missing, so there is no registry here"),
        (["image.jpg", "--model", "imagenet:VGG"], "did you mean VGG19 or VGG16?"),
    ],
)
def test_a_mistake_of_the_user_is_one_message(
    words: Sequence[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["predict", *words])
    with pytest.raises(SystemExit) as ended:
        predict.main()
    assert ended.value.code == predict.MISTAKE
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and not list(tmp_path.iterdir())


def test_heat_maps_show_where_the_model_looked(
    model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in [*sorted(drawn.glob("*/*.jpg"))[:2], drawn / "b/text.txt"]:
        (tmp_path / "scans" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "scans" / path.parent.name)
    words = ["scans", "--model", str(model), "--output", "out.csv", "--explain", "seen"]
    assert command(*words) == predict.UNANSWERED
    images = sorted(Path("scans").rglob("*.jpg"))
    pictures = [Path("seen") / image for image in images]
    assert sorted(Path("seen").rglob("*.*")) == pictures
    content = pictures[0].read_bytes()
    row = next(row for row in table(Path("out.csv").read_bytes()) if row["path"] == str(images[0]))
    explainer = gradcam.load(model)
    heat = explainer.heatmaps(
        decode(images[0], 1, SIZE)[np.newaxis], [CLASSES.index(row["predicted"])]
    )[0]
    expected = gradcam.overlay(np.asarray(Image.open(images[0]).convert("RGB")), heat)
    assert np.abs(np.asarray(Image.open(pictures[0]), int) - expected).mean() < 8  # JPEG
    pictures[0].unlink()
    command(*words)
    assert pictures[0].read_bytes() == content
