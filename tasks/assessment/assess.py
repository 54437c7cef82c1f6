"""Assess a trained model on a foreign folder of labelled images: an external validation.

The folder is only read. All its files are one test set, whatever its subfolders are called. Images
that are copies of images that the model was given are marked, and all scores are computed with and
without them. Broken files are listed. Run it with `python -m flows.assess`.
"""

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import mlflow
import pandas as pd
from tqdm import tqdm

from tasks.assessment import class_mapping, report
from tasks.assessment.model_record import ModelRecord, find_record, flatten_effects
from tasks.assessment.report import ALL, FOLDERS_CSV, OVERLAP_CSV, QUARANTINE_CSV, REST
from tasks.errors import UserError
from tasks.imaging.picture import Limits
from tasks.params.split import NearCopies
from tasks.params.whole import load_params
from tasks.quality.duplicates import find_duplicates, group_duplicates
from tasks.quality.scan import list_files, scan
from tasks.registry import unseen_images
from tasks.reporting import page
from tasks.reporting.thumbnails import Images
from tasks.results import METRICS_JSON, PREDICTIONS_CSV
from tasks.scoring.evaluation import make_tables, measure_intervals, score_part
from tasks.scoring.thresholds import count_alarms, measure_abstention
from tasks.stage import run
from tasks.tables import read_table, write_table
from tasks.tracking import runs
from tasks.tracking.keys import make_key

FOLDERS_COLUMNS = {
    "folder": "Name of the class folder.",
    "class": "Class of the model. Blank if the folder is left out.",
    "images": "Number of usable images.",
    "rejected": "Number of files that cannot be used.",
    "overlap": "Number of images that the model was given. Absent if these are not known.",
}

log = logging.getLogger(__name__)


def main(
    images: Path, model: str, output: Path, name: str | None = None, classes: Path | None = None
) -> None:
    """Write the tables, the metrics and the report to `output`.

    `name` is the name of the registered model. `classes` is a YAML file with lines `folder: class`.
    """
    params = load_params()
    near = params.split.near_copies
    check_folders(images, output)
    check_names(images)
    given = class_mapping.read_classes(classes) if classes else {}
    limits = Limits(params.validate_.max_bytes, params.validate_.max_pixels)
    record = find_record(model, name, limits)
    files = scan(images, record.predictor.limits, None).files
    class_of = class_mapping.map_folders(
        count_usable(files, images), given, record.predictor.classes, images
    )
    chosen = choose(files, images, class_of)
    overlap = find_overlap(chosen, record, near)
    answers = predict(chosen, images, record, near, overlap)

    output.mkdir(parents=True, exist_ok=True)
    write_files(files, class_of, overlap, output)
    write_table(answers, output / PREDICTIONS_CSV)
    bins = params.evaluate.calibration_bins
    scores = write_scores(output, record, bins, overlap_is_known=overlap is not None)
    assessed = report.Assessed(
        Images(images, params.report.thumbnails),
        output,
        files,
        unseen_images.images_sha256(chosen),
        params.report.language,
    )
    report.write(assessed, record)
    runs.attempt(lambda: track(assessed, record, scores))
    log_scores(scores)
    log.info("%s", output / page.PAGE)


def check_folders(images: Path, output: Path) -> None:
    """Raise `UserError` if the images are not a folder, or the output would replace other files."""
    if not images.is_dir():
        raise UserError(
            f"{images} is not a folder: expected a folder of images for each class in it (--images)"
        )
    if output.resolve().is_relative_to(images.resolve()):
        raise UserError(
            f"{output} is inside {images}, which is only read: pass another folder with --output"
        )
    is_other = not output.is_dir() or (
        any(output.iterdir()) and not (output / FOLDERS_CSV).exists()
    )
    if output.exists() and is_other:
        raise UserError(
            f"{output} holds something else than an assessment: pass a new or an empty folder with "
            "--output"
        )


def check_names(images: Path) -> None:
    """Raise `UserError` if a file name is not UTF-8, because no table can hold it."""
    odd = [
        path.name
        for path in list_files(images)
        if str(path).encode(errors="replace").decode() != str(path)
    ]
    if odd:
        raise UserError(
            f"{len(odd)} files in {images} have names that are not UTF-8, such as {odd[0]!a}: "
            "rename them"
        )


def count_usable(files: pd.DataFrame, images: Path) -> dict[str, int]:
    """Return the usable images of each class folder. Raises `UserError` if there are none."""
    usable = files[files.status == "usable"]
    if usable.empty:
        counts = files.reason.value_counts().sort_index()
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise UserError(
            f"{images}: expected images as <class>/<image>, received {len(files)} files and no "
            f"usable image ({reasons})"
        )
    return usable.label.value_counts().sort_index().to_dict()


def choose(files: pd.DataFrame, images: Path, class_of: Mapping[str, str | None]) -> pd.DataFrame:
    """Return the images to predict: path, file, folder, label (of the model), sha256, hash."""
    usable = files[files.status == "usable"]
    usable = usable.assign(
        folder=usable.label,
        label=usable.label.map(class_of),
        file=[str(images / path) for path in usable.path],
    )
    chosen = usable[usable.label.notna()].reset_index(drop=True)
    return chosen[["path", "file", "folder", "label", "sha256", "hash"]]


def find_overlap(
    chosen: pd.DataFrame, record: ModelRecord, near: NearCopies
) -> pd.DataFrame | None:
    """Return the images that copy an image the model was given. None if those are not known."""
    if record.given is None:
        return None
    splits_csv = record.data / "splits.csv"
    splits = (
        read_table(splits_csv)
        if splits_csv.exists()
        else pd.DataFrame(columns=["sha256", "split", "path"], dtype=str)
    )
    return unseen_images.find_copies(chosen, record.given, splits, record.data / "clean", near)


def predict(
    chosen: pd.DataFrame,
    images: Path,
    record: ModelRecord,
    near: NearCopies,
    overlap: pd.DataFrame | None,
) -> pd.DataFrame:
    """Return one row for each image: label, group of copies, overlap, prediction."""
    kinds = {} if overlap is None else dict(zip(overlap.path, overlap.kind, strict=True))
    copies = find_duplicates(chosen, images, near.hash_distance, near.correlation)
    answers = record.predictor.stream(Path(file) for file in chosen.file)
    rows, clipped = [], 0
    progress = tqdm(answers, total=len(chosen), desc="predictions", unit=" images")
    for path, answer in zip(chosen.path, progress, strict=True):
        if answer.error:
            raise UserError(
                f"{images / path} changed while it was read ({answer.error}): run again"
            )
        clipped += answer.clipped > 0
        rows.append(
            {
                "overlap": kinds.get(path, ""),
                "predicted": answer.predicted,
                "abstained": answer.abstained,
                "unfamiliar": answer.unfamiliar,
                "distance": answer.distance,
                **{f"p_{label}": share for label, share in answer.probabilities.items()},
            }
        )
    if clipped:
        log.info("%d images have pixels brighter than all training images: made white", clipped)
    known = chosen[["path", "folder", "label"]]
    known = known.assign(split=ALL, group=group_duplicates(chosen.path, copies))
    return known.join(pd.DataFrame(rows))


def write_files(
    files: pd.DataFrame,
    class_of: Mapping[str, str | None],
    overlap: pd.DataFrame | None,
    output: Path,
) -> None:
    """Write the tables of the folders, of the rejected files, and of the overlap if it is known."""
    write_table(list_folders(files, class_of, overlap), output / FOLDERS_CSV)
    rejected = files[files.status == "rejected"].astype({"bytes": "Int64"})
    write_table(rejected[["path", "reason", "detail", "bytes"]], output / QUARANTINE_CSV)
    (output / OVERLAP_CSV).unlink(missing_ok=True)
    if overlap is not None:
        write_table(overlap, output / OVERLAP_CSV)


def write_scores(
    output: Path, record: ModelRecord, bins: int, overlap_is_known: bool
) -> dict[str, float]:
    """Write the metrics and the tables of the predictions that were written. Return the metrics."""
    predictions = read_table(output / PREDICTIONS_CSV)
    scores = score(predictions, record, bins, overlap_is_known)
    (output / METRICS_JSON).write_text(json.dumps(scores, indent=2) + "\n")
    tables = make_tables(predictions, record.temperature, bins, [ALL])
    for table in report.TABLES:
        write_table(tables[table], output / f"{table}.csv")
    return scores


def list_folders(
    files: pd.DataFrame, class_of: Mapping[str, str | None], overlap: pd.DataFrame | None
) -> pd.DataFrame:
    """Return one row for each class folder, in the columns of `FOLDERS_COLUMNS`."""
    named = files[files.label != ""]
    counts = pd.crosstab(named.label, named.status).reindex(
        columns=["usable", "rejected"], fill_value=0
    )
    table = counts.rename_axis("folder").reset_index().rename(columns={"usable": "images"})
    table.insert(1, "class", [class_of.get(folder) or "" for folder in table.folder])
    if overlap is None:
        return table
    copied = named.label[named.path.isin(overlap.path)].value_counts()
    return table.assign(overlap=table.folder.map(copied).fillna(0).astype(int))


def score(
    predictions: pd.DataFrame, record: ModelRecord, bins: int, overlap_is_known: bool
) -> dict[str, float]:
    """Return the metrics of all images, of those without overlap, and of its own test images."""
    parts = {ALL: predictions}
    if overlap_is_known:
        parts[REST] = predictions[predictions.overlap == ""]
    scores: dict[str, float] = {"temperature": record.temperature}
    for prefix, rows in parts.items():
        numbers: dict[str, float] = {"images": len(rows), "classes": rows.label.nunique()}
        if len(rows):
            numbers |= score_part(rows, record.temperature, bins)
            numbers |= measure_intervals(rows) | measure_effects(rows, record)
        scores |= {f"{prefix}_{name}": value for name, value in numbers.items()}
    return {
        name: value if isinstance(value, int) else float(f"{value:.7g}")
        for name, value in (scores | record.own).items()
    }


def measure_effects(rows: pd.DataFrame, record: ModelRecord) -> dict[str, float]:
    """Return how many images the model answered and called unfamiliar, and how accurately."""
    limits, right = record.predictor.thresholds, (rows.predicted == rows.label).to_numpy()
    answered = (rows.abstained == "False").to_numpy(float)
    unfamiliar = (rows.unfamiliar == "True").to_numpy(float)
    return flatten_effects(
        None if limits.confidence is None else measure_abstention(answered, right, 0.5),
        None if limits.distance is None else count_alarms(unfamiliar, 0.5),
    )


def track(assessed: report.Assessed, record: ModelRecord, scores: Mapping[str, float]) -> None:
    """Log the metrics and the report in an MLflow run that names the images and the model."""
    folder = assessed.images.folder.resolve()
    tags = {
        "assessed_images": str(folder),
        "images_sha256": assessed.sha256,
        "model_sha256": record.predictor.sha256,
    }
    metrics = {make_key(name): value for name, value in scores.items() if name.startswith(ALL)}
    with runs.record_run(
        lambda: mlflow.start_run(
            experiment_id=runs.open_store(),
            run_name=f"assess {folder.name}",
            tags=tags | record.tags,
        )
    ):
        runs.record(lambda: mlflow.log_metrics(metrics))
        for file in (page.PAGE, page.SHORT, METRICS_JSON):
            runs.record(partial(mlflow.log_artifact, str(assessed.output / file)))


def log_scores(scores: Mapping[str, float]) -> None:
    """Log the main scores of each set of images."""
    for prefix, words in report.name_columns().items():
        if f"{prefix}_accuracy" not in scores:
            continue
        shown = (
            scores.get(f"{prefix}_{name}", float("nan"))
            for name in (
                "accuracy",
                "accuracy_low",
                "accuracy_high",
                "macro_f1",
                "calibration_error",
            )
        )
        images = scores.get(f"{prefix}_images", "")
        log.info(
            "%-19s accuracy %.3f (%.3f to %.3f)  macro F1 %.3f  calibration error %.3f  images %s",
            *(words, *shown, images),
        )


if __name__ == "__main__":
    run(main, of_pipeline=False)
