"""Classify image files from the command line: a table, or a CSV file that can be continued.

    python -m serving.predict scan.jpg
    python -m serving.predict scans/ --output predictions.csv
    python -m serving.predict scans/ --model 3 --output predictions.csv --explain explanations/

A file that cannot be decoded has an `error`, and the others are still predicted. From a folder all
files are taken, at any depth, except hidden ones and those of operating systems (`__MACOSX`,
`Thumbs.db`). A file is not predicted again if `--output` has a row of the same path, the same bytes
and the same model.
"""

import argparse
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from serving import explain, rows
from tasks import machine
from tasks.errors import UserError, describe_error
from tasks.inference.predictor import BATCH, PLACES, THREADS, Answer, Predictor
from tasks.quality.junk import is_junk
from tasks.registry import load
from tasks.tables import escape_controls
from tasks.terminal import is_terminal, print_table
from tasks.tracking.hashes import file_sha256

OK, MISTAKE, UNANSWERED, INTERRUPTED = 0, 1, 3, 130
STATUS = (
    "exit status: 0 all files have a prediction; 1 nothing could be done; 2 wrong usage; "
    "3 some files have an error; 130 interrupted"
)
DOUBTS = ("abstained", "unfamiliar", "error")  # columns that the table shows as words
WIDEST, NARROW = 60, 34  # characters of a path in plain lines, and in the table
REMARKS = {"abstained": "too unsure", "unfamiliar": "unlike training images"}
SUMMARY = {
    "abstained": "too unsure to rely on",
    "unfamiliar": "unlike the training images",
    "error": "without a prediction",
    "clipped": "with pixels brighter than in any training image, seen as white",
}


def run(arguments: argparse.Namespace) -> int:
    """Predict as the command line says, and return the exit status. Raises `UserError`."""
    outputs = [path for path in (arguments.output, arguments.explain) if path]
    files = list_files(arguments.images, outputs)
    with _silence_libraries():
        predictor = load.load_predictor(
            arguments.model, arguments.name, explain=arguments.explain is not None
        )
    if arguments.max_pixels is not None:
        limits = replace(predictor.limits, max_pixels=arguments.max_pixels)
        predictor = replace(predictor, limits=limits)
    if arguments.output is None:
        counts = print_predictions(predictor, files, arguments.explain)
    else:
        counts = write_csv(predictor, files, arguments.output, arguments.explain)
    print(summarise(counts, len(files), predictor), file=sys.stderr)
    return UNANSWERED if counts["error"] else OK


def list_files(images: Sequence[Path], outputs: Sequence[Path] = ()) -> list[Path]:
    """Return the given files and those in given folders, each once, without our own outputs.

    Raises `UserError` if there is none.
    """
    found = {
        file: None
        for image in images
        for file in (sorted(walk(image), key=Path.as_posix) if image.is_dir() else [image])
    }
    own = [output.absolute() for output in outputs]
    files = [
        file for file in found if not any(file.absolute().is_relative_to(output) for output in own)
    ]
    if not files:
        raise UserError(f"{', '.join(map(str, images))}: expected image files, found none")
    return files


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, and the folders that cannot be listed.

    Links are followed, and each folder is visited once.
    """
    seen: set[str] = set()
    refused: list[OSError] = []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refused.append):
        real = os.path.realpath(parent)
        folders[:] = [name for name in folders if not is_junk(name) and real not in seen]
        if real not in seen:
            yield from (Path(parent, name) for name in names if not is_junk(name))
        seen.add(real)
    yield from (Path(error.filename) for error in refused)


def write_csv(
    predictor: Predictor, files: Sequence[Path], output: Path, pictures: Path | None = None
) -> Counter[str]:
    """Write a row per file to `output`, batch by batch. Returns the number of files per doubt."""
    model = f"{predictor.name} {predictor.identity[:12]}"
    with rows.open_rows(output, predictor.columns) as table:
        remaining = list_unfinished(files, table.before, model, pictures)
        predictions, clipped = predict_files(predictor, remaining, pictures), 0
        with _show_progress(len(files), len(files) - len(remaining)) as progress:
            while batch := list(islice(predictions, BATCH)):
                table.append(
                    rows.make_row(file, answer.sha256, predictor.record(answer), model)
                    for file, answer in batch
                )
                clipped += sum(answer.clipped > 0 for _, answer in batch)
                progress.update(len(batch))
        ordered = table.sort([escape_controls(file) for file in files])
    counts = Counter(
        column
        for row in ordered
        for column in DOUBTS
        if row[table.header.index(column)] not in ("", "false")
    )
    return counts + Counter(clipped=clipped)


def predict_files(
    predictor: Predictor, files: Sequence[Path], pictures: Path | None
) -> Iterator[tuple[Path, Answer]]:
    """Yield each file with its prediction. With `pictures`, its heat map is written before."""
    for file, answer in zip(files, predictor.stream(files), strict=True):
        if pictures is not None and answer.predicted is not None:
            explain.write(predictor, file, answer.predicted, explain.find_target(pictures, file))
        yield file, answer


def list_unfinished(
    files: Sequence[Path], before: Mapping[str, rows.Row], model: str, pictures: Path | None
) -> list[Path]:
    """Return the files of all batches in which a file has no row or no heat map yet.

    Batches are repeated as a whole: the last digit of a probability depends on the size of the
    batch.
    """

    def is_finished(file: Path) -> bool:
        return _is_finished(file, before.get(escape_controls(file)), model, pictures)

    with ThreadPoolExecutor(THREADS) as pool:
        finished = list(pool.map(is_finished, files))
    starts = range(0, len(files), BATCH)
    unfinished = [start for start in starts if not all(finished[start : start + BATCH])]
    return [file for start in unfinished for file in files[start : start + BATCH]]


def print_predictions(
    predictor: Predictor, files: Sequence[Path], pictures: Path | None = None
) -> Counter[str]:
    """Print a table on a terminal, and plain lines elsewhere.

    Returns the number of files per doubt.
    """
    counts: Counter[str] = Counter()

    def predict() -> Iterator[tuple[Path, Answer, list[str]]]:
        for file, answer in predict_files(predictor, files, pictures):
            record = predictor.record(answer)
            doubts = [name for name in DOUBTS if record[name]]
            counts.update(doubts + ["clipped"] * (answer.clipped > 0))
            yield file, answer, doubts

    if is_terminal():
        watched = tqdm(
            predict(), "predicting", len(files), leave=False, disable=len(files) <= BATCH, ncols=100
        )
        rows = [make_table_row(predictor, *prediction) for prediction in watched]
        print_table(["file", "class", "probability", "second class", "remark"], rows)
    else:
        print_lines(predictor, files, predict())
    return counts


def make_table_row(
    predictor: Predictor, file: Path, answer: Answer, doubts: Sequence[str]
) -> list[str]:
    """Return the end of the path, the two most probable classes by their names, and a remark."""
    shown = escape_controls(file)
    path = shown if len(shown) <= NARROW else f"…{shown[1 - NARROW :]}"
    if answer.error:
        return [path, "", "", "", answer.error]
    best = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:2]
    (first, high), *rest = [(escape_controls(predictor.name_class(label)), p) for label, p in best]
    second = "".join(f"{name} {100 * low:.1f} %" for name, low in rest)
    remark = ", ".join(REMARKS[name] for name in doubts)
    return [path, first, f"{100 * high:.1f} %", second, remark]


def print_lines(
    predictor: Predictor,
    files: Sequence[Path],
    predictions: Iterable[tuple[Path, Answer, Sequence[str]]],
) -> None:
    """Print a line for each prediction at once, for a pipe or a log."""
    columns = [column for column in predictor.columns if column not in (*DOUBTS, "distance")]
    label = max(len(escape_controls(name)) for name in predictor.classes)
    widths = {
        column: max(len(escape_controls(column)), label if column in PLACES else 5)
        for column in columns
    }
    first = min(WIDEST, max(len(escape_controls(file)) for file in files))
    head = [f"{escape_controls(column):{width}}" for column, width in widths.items()]
    print("  ".join([f"{'path':{first}}", *head]))
    for file, answer, doubts in predictions:
        record = predictor.record(answer)
        numbers = [f"{_format_cell(record[column]):{width}}" for column, width in widths.items()]
        cells = [answer.error] if answer.error else [*numbers, ", ".join(doubts)]
        print("  ".join([f"{escape_controls(file):{first}}", *cells]).rstrip(), flush=True)


def summarise(counts: Counter[str], files: int, predictor: Predictor) -> str:
    """Return the numbers of files, of predictions and of each doubt, and the model."""
    parts = [
        f"{files:,} file{'s' * (files != 1)}",
        f"{files - counts['error']:,} predicted by {predictor.name}",
        *(f"{counts[name]:,} {text}" for name, text in SUMMARY.items() if counts[name]),
    ]
    return ", ".join(parts)


def main() -> None:
    """Predict, and exit with a status that `--help` explains."""
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "WARNING"), format="%(message)s")
    warnings.filterwarnings("ignore")  # Pillow warns of damaged files
    machine.report_ignored(lambda text: print(text, file=sys.stderr))
    try:
        sys.exit(run(parse()))
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = describe_error(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(MISTAKE)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.predict",
        description="Predict the class of image files, with the model's confidence.",
        epilog=STATUS,
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE|FOLDER",
        help="image files, and folders with image files at any depth",
    )
    parser.add_argument(
        "--model",
        default="champion",
        help="champion (default), another alias, a version, a folder such as data/models/cnn_a, or "
        "a classifier of keras.applications such as imagenet:VGG16",
    )
    parser.add_argument(
        "--name", help="name of the registered model; default: register.model of params.yaml"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="CSV",
        help="file to write, or to continue after an interruption; default: print a table",
    )
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="FOLDER",
        help="folder for a heat map of each file: where the model looked",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="largest width times height of a file; default: validate.max_pixels of params.yaml",
    )
    return parser.parse_args(words)


@contextmanager
def _silence_libraries() -> Iterator[None]:
    """Drop what TensorFlow's libraries write to standard error on import; no setting does that."""
    if os.environ.get("LOG_LEVEL") == "DEBUG":
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _is_finished(file: Path, row: rows.Row | None, model: str, pictures: Path | None) -> bool:
    if row is None or row[-1] != model or not file.is_file():
        return False
    if pictures is not None and not row[-2] and not explain.find_target(pictures, file).exists():
        return False
    try:
        return row[1] == file_sha256(file)
    except OSError:
        return False


def _show_progress(files: int, done: int) -> tqdm:
    """Return a progress bar. In a log it is a line every ten seconds."""
    interval = 0.2 if sys.stderr.isatty() else 10
    return tqdm(
        total=files,
        initial=done,
        desc="predicting",
        unit=" images",
        disable=False,
        mininterval=interval,
        ncols=100,
    )


def _format_cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else escape_controls(value)


if __name__ == "__main__":
    main()
