"""Answer image files from the command line: a table on the terminal, or a CSV file that an interrupted run goes on with.

    python -m serving.predict scan.jpg
    python -m serving.predict scans/ --output predictions.csv
    python -m serving.predict scans/ --model 3 --output predictions.csv --explain explanations/

Files that cannot be decoded are reported in the column `error` and stop nothing. Of a folder every file is taken, at any
depth, but hidden ones and what systems leave (`__MACOSX`, `Thumbs.db`). A file is not answered again when `--output` has a
row of the same path and bytes by the same model.
"""

import argparse
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from tasks.tables import printable
from tasks.tracking.hashes import file_sha256

OK, MISTAKE, UNANSWERED, INTERRUPTED = 0, 1, 3, 130
STATUS = "exit status: 0 all have an answer; 1 nothing could be done; 2 wrong usage; 3 some have an error; 130 interrupted"
TOLD = ("abstained", "unfamiliar", "error")  # columns that become words on the terminal
WIDEST = 60  # characters of a path on the terminal


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line says and return the exit status. Raises `UserError` for a user's mistake."""
    files = listed(
        arguments.images, [path for path in (arguments.output, arguments.explain) if path]
    )
    with _without_noise():
        predictor = load.load_predictor(
            arguments.model, arguments.name, explain=arguments.explain is not None
        )
    if arguments.max_pixels is not None:
        predictor = replace(
            predictor, limits=replace(predictor.limits, max_pixels=arguments.max_pixels)
        )
    if arguments.output is None:
        counts = show(predictor, files, arguments.explain)
    else:
        counts = write(predictor, files, arguments.output, arguments.explain)
    print(told(counts, len(files), predictor), file=sys.stderr)
    return UNANSWERED if counts["error"] else OK


def listed(images: Sequence[Path], outputs: Sequence[Path] = ()) -> list[Path]:
    """Return the files that are meant, each once: those named, and those below each folder, sorted; never what we write.

    Raises `UserError` where there is none.
    """
    found = {
        file: None
        for image in images
        for file in (sorted(walk(image), key=Path.as_posix) if image.is_dir() else [image])
    }
    ours = [output.absolute() for output in outputs]
    files = [
        file for file in found if not any(file.absolute().is_relative_to(output) for output in ours)
    ]
    if not files:
        raise UserError(f"{', '.join(map(str, images))}: expected image files, found none")
    return files


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, and the folders that cannot be listed; links are followed, each folder once."""
    seen, refused = set(), []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refused.append):
        real = os.path.realpath(parent)
        folders[:] = [name for name in folders if not is_junk(name) and real not in seen]
        if real not in seen:
            yield from (Path(parent, name) for name in names if not is_junk(name))
        seen.add(real)
    yield from (Path(error.filename) for error in refused)


def write(
    predictor: Predictor, files: Sequence[Path], output: Path, pictures: Path | None = None
) -> Counter[str]:
    """Have a row of every file in `output`, batch by batch, and return how many say what."""
    model = f"{predictor.name} {predictor.identity[:12]}"
    with rows.opened(output, predictor.columns) as table:
        todo = unanswered(files, table.before, model, pictures)
        answers, clipped = answered(predictor, todo, pictures), 0
        with _progress(len(files), len(files) - len(todo)) as progress:
            while batch := list(islice(answers, BATCH)):
                table.append(
                    rows.row(file, answer.sha256, predictor.record(answer), model)
                    for file, answer in batch
                )
                clipped += sum(answer.clipped > 0 for _, answer in batch)
                progress.update(len(batch))
        ordered = table.put_in_order([printable(file) for file in files])
    counts = Counter(
        column
        for row in ordered
        for column in TOLD
        if row[table.header.index(column)] not in ("", "false")
    )
    return counts + Counter(clipped=clipped)


def answered(
    predictor: Predictor, files: Sequence[Path], pictures: Path | None
) -> Iterator[tuple[Path, Answer]]:
    """Yield each file with its answer, once its picture is written if there is to be one."""
    for file, answer in zip(files, predictor.stream(files), strict=True):
        if pictures is not None and answer.predicted is not None:
            explain.write(predictor, file, answer.predicted, explain.place(pictures, file))
        yield file, answer


def unanswered(
    files: Sequence[Path], before: Mapping[str, rows.Row], model: str, pictures: Path | None
) -> list[Path]:
    """Return the files of each batch in which one has no row of these bytes by this model, or no picture.

    Batches are made whole again, since the last digit of a probability depends on how many images are in the batch.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        done = list(
            pool.map(
                lambda file: _is_answered(file, before.get(printable(file)), model, pictures), files
            )
        )
    starts = [
        start for start in range(0, len(files), BATCH) if not all(done[start : start + BATCH])
    ]
    return [file for start in starts for file in files[start : start + BATCH]]


def show(predictor: Predictor, files: Sequence[Path], pictures: Path | None = None) -> Counter[str]:
    """Print a table, a line as soon as there is an answer, and return how many say what."""
    columns = [column for column in predictor.columns if column not in (*TOLD, "distance")]
    label = max(len(printable(name)) for name in predictor.classes)
    widths = {
        column: max(len(printable(column)), label if column in PLACES else 5) for column in columns
    }
    first = min(WIDEST, max(len(printable(file)) for file in files))
    print(
        "  ".join(
            [
                f"{'path':{first}}",
                *(f"{printable(column):{width}}" for column, width in widths.items()),
            ]
        )
    )
    counts: Counter[str] = Counter()
    for file, answer in answered(predictor, files, pictures):
        record = predictor.record(answer)
        said = [name for name in TOLD if record[name]]
        counts.update(said + ["clipped"] * (answer.clipped > 0))
        texts = (
            [f"{_figure(record[column]):{width}}" for column, width in widths.items()]
            if answer.error is None
            else []
        )
        print(
            "  ".join(
                [f"{printable(file):{first}}", *texts, answer.error or ", ".join(said)]
            ).rstrip(),
            flush=True,
        )
    return counts


def told(counts: Counter[str], files: int, predictor: Predictor) -> str:
    """Return in words what was answered, and by whom."""
    parts = [
        f"{files:,} file{'s' * (files != 1)}",
        f"{files - counts['error']:,} answered by {predictor.name}",
    ]
    words = {
        "abstained": "too unsure to be believed",
        "unfamiliar": "unlike the training images",
        "error": "without an answer",
    }
    words["clipped"] = "with pixels brighter than in any training image, which count as white"
    return ", ".join(
        [*parts, *(f"{counts[name]:,} {text}" for name, text in words.items() if counts[name])]
    )


def main() -> None:
    """Answer, and end with a status that says how it went."""
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "WARNING"), format="%(message)s")
    warnings.filterwarnings("ignore")  # Pillow's, of damaged files
    machine.report_ignored(lambda text: print(text, file=sys.stderr))
    try:
        sys.exit(run(parse()))
    except KeyboardInterrupt:
        print("\ninterrupted: run again to go on from here", file=sys.stderr)
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
        description="Say which class image files show, and how sure the model is.",
        epilog=STATUS,
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE|FOLDER",
        help="files, and folders of any depth",
    )
    parser.add_argument(
        "--model", default="champion", help="champion (default), another alias, a version, a folder such as data/models/cnn_a, "
        "or imagenet:VGG16 and other classifiers of keras.applications",
    )  # fmt: skip
    parser.add_argument(
        "--name", help="of the registered model; default: register.model of params.yaml"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="CSV",
        help="write there, and go on from there; default: a table",
    )
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="FOLDER",
        help="write there where the model looked, a picture of each file",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="width times height of a file; default: validate.max_pixels of params.yaml",
    )
    return parser.parse_args(words)


@contextmanager
def _without_noise() -> Iterator[None]:
    """Keep back what TensorFlow's libraries write to standard error when they are loaded, which no setting prevents."""
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


def _is_answered(file: Path, row: rows.Row | None, model: str, pictures: Path | None) -> bool:
    if row is None or row[-1] != model or not file.is_file():
        return False
    if pictures is not None and not row[-2] and not explain.place(pictures, file).exists():
        return False
    try:
        return row[1] == file_sha256(file)
    except OSError:
        return False


def _progress(files: int, done: int) -> tqdm:
    """Shown in logs too, where a line comes every ten seconds."""
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


def _figure(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else printable(value)


if __name__ == "__main__":
    main()
