"""Score a trained model on a foreign folder of labelled images, which is only read: an external validation.

All files below the folder are one test set, whatever its parts are called. Images that copy what the model was given for
training or validation are told apart, and the scores stand a second time without them. Broken files are listed and stop
nothing. Fails where a folder means no class of the model. `python -m flows.assess` runs it and has the options.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import mlflow
import pandas as pd
from tqdm import tqdm

from tasks.assessment import class_mapping, model_record, report
from tasks.assessment.model_record import Subject
from tasks.errors import UserError
from tasks.imaging.picture import Limits
from tasks.inference.predictor import Predictor
from tasks.params.split import NearCopies
from tasks.params.whole import load_params
from tasks.quality.duplicates import find_duplicates, group_duplicates
from tasks.quality.scan import list_files, scan
from tasks.registry import unseen_images
from tasks.reporting import page
from tasks.results import METRICS_JSON, PREDICTIONS_CSV
from tasks.scoring.evaluation import bounds, score_part, tables
from tasks.scoring.thresholds import abstaining, alarms
from tasks.stage import run
from tasks.tables import read_table, write_table
from tasks.tracking import runs
from tasks.tracking.keys import make_key

ALL, REST = report.ALL, report.REST
FOLDERS = "folders.csv"

log = logging.getLogger(__name__)


def main(
    images: Path, model: str, output: Path, name: str | None = None, classes: Path | None = None
) -> None:
    """Write tables, metrics and report to `output`. `name` is of the registered model, `classes` a file as flows/assess.py says."""
    params = load_params()
    bins, near = params.evaluate.calibration_bins, params.split.near_copies
    check_places(images, output)
    check_names(images)
    said = class_mapping.read_classes(classes) if classes else {}
    assessed = model_record.find(
        model, name, Limits(params.validate_.max_bytes, params.validate_.max_pixels)
    )
    files = scan(images, assessed.predictor.limits, None).files
    meant = class_mapping.assign(
        count_usable(files, images), said, assessed.predictor.classes, str(images)
    )
    asked = choose(files, images, meant)
    copies = find_overlap(asked, assessed, near)
    answers = predict(asked, images, assessed.predictor, copies, near)

    output.mkdir(parents=True, exist_ok=True)
    write_table(list_folders(files, meant, copies), output / FOLDERS)
    rejected = files[files.status == "rejected"].astype({"bytes": "Int64"})
    write_table(rejected[["path", "reason", "detail", "bytes"]], output / "quarantine.csv")
    (output / "overlap.csv").unlink(missing_ok=True)
    if copies is not None:
        write_table(copies, output / "overlap.csv")
    write_table(answers, output / PREDICTIONS_CSV)
    predictions = read_table(output / PREDICTIONS_CSV)
    scores = score(predictions, assessed, bins, copies is not None)
    (output / METRICS_JSON).write_text(json.dumps(scores, indent=2) + "\n")
    for table, rows in tables(predictions, assessed.temperature, bins, [ALL]).items():
        if table != "test_classes":  # which is for DVC's plots
            write_table(rows, output / f"{table}.csv")
    sha256 = unseen_images.images_sha256(asked)
    described = report.describe(images, output, assessed, files, sha256, params.report.thumbnails)
    page.write(described, output, "assessment", report.TEMPLATES)
    runs.attempt(lambda: track(images, output, assessed, scores, sha256))
    tell(scores, output)


def check_places(images: Path, output: Path) -> None:
    """Raise `ValueError` where the images are no folder, or the output would be written into it or over something else."""
    if not images.is_dir():
        raise UserError(
            f"{images} is no folder: expected one that holds a folder of images for each class (--images)"
        )
    if output.resolve().is_relative_to(images.resolve()):
        raise UserError(
            f"{output} lies in {images}, which is only read: name another place with --output"
        )
    if output.exists() and (
        not output.is_dir() or (any(output.iterdir()) and not (output / FOLDERS).exists())
    ):
        raise UserError(
            f"{output} holds something else than an assessment: name a new or an empty folder with --output"
        )


def check_names(images: Path) -> None:
    """Raise `UserError` for files whose names no table can hold."""
    odd = [
        path.name
        for path in list_files(images)
        if str(path).encode(errors="replace").decode() != str(path)
    ]
    if odd:
        raise UserError(
            f"{len(odd)} files in {images} have names that are not UTF-8, such as {odd[0]!a}: rename them"
        )


def count_usable(files: pd.DataFrame, images: Path) -> dict[str, int]:
    """Return the usable images of each class folder. Raises `UserError` where there is none at all."""
    usable = files[files.status == "usable"]
    if usable.empty:
        reasons = ", ".join(
            f"{count} {reason}"
            for reason, count in files.reason.value_counts().sort_index().items()
        )
        raise UserError(
            f"{images}: expected images as <class>/<image>, received {len(files)} files without one ({reasons})"
        )
    return usable.label.value_counts().sort_index().to_dict()


def choose(files: pd.DataFrame, images: Path, meant: Mapping[str, str | None]) -> pd.DataFrame:
    """Return the images that are asked about: path, file, folder, label (of the model), sha256, hash."""
    usable = files[files.status == "usable"]
    usable = usable.assign(
        folder=usable.label,
        label=usable.label.map(meant),
        file=[str(images / path) for path in usable.path],
    )
    asked = usable[usable.label.notna()].reset_index(drop=True)
    return asked[["path", "file", "folder", "label", "sha256", "hash"]]


def find_overlap(asked: pd.DataFrame, assessed: Subject, near: NearCopies) -> pd.DataFrame | None:
    """Return what `evidence.overlap` finds; None where nobody knows what the model was given."""
    if assessed.given is None:
        return None
    splits_csv = assessed.data / "splits.csv"
    splits = (
        read_table(splits_csv)
        if splits_csv.exists()
        else pd.DataFrame(columns=["sha256", "split", "path"], dtype=str)
    )
    return unseen_images.overlap(
        asked, assessed.given, splits, assessed.data / "clean", near.hash_distance, near.correlation
    )


def list_folders(
    files: pd.DataFrame, meant: Mapping[str, str | None], copies: pd.DataFrame | None
) -> pd.DataFrame:
    """Return folder, class ("" where it is left out), images, rejected, and how many images overlap."""
    named = files[files.label != ""]
    counts = pd.crosstab(named.label, named.status).reindex(
        columns=["usable", "rejected"], fill_value=0
    )
    table = counts.rename_axis("folder").reset_index().rename(columns={"usable": "images"})
    table.insert(1, "class", [meant.get(folder) or "" for folder in table.folder])
    if copies is None:
        return table
    overlap = named.label[named.path.isin(copies.path)].value_counts()
    return table.assign(overlap=table.folder.map(overlap).fillna(0).astype(int))


def predict(
    asked: pd.DataFrame,
    images: Path,
    predictor: Predictor,
    copies: pd.DataFrame | None,
    near: NearCopies,
) -> pd.DataFrame:
    """Return a row per image: its label, group of copies among these images, kind of overlap, and what the model says."""
    alike = find_duplicates(asked, images, near.hash_distance, near.correlation)
    kinds = {} if copies is None else dict(zip(copies.path, copies.kind, strict=True))
    answers = predictor.stream(Path(file) for file in asked.file)
    rows, clipped = [], 0
    for path, answer in zip(
        asked.path, tqdm(answers, total=len(asked), desc="answers", unit=" images"), strict=True
    ):
        if answer.error:
            raise UserError(
                f"{images / path} changed while it was read ({answer.error}): run again"
            )
        said = {
            "predicted": answer.predicted,
            "abstained": answer.abstained,
            "unfamiliar": answer.unfamiliar,
        }
        shares = {f"p_{label}": share for label, share in answer.probabilities.items()}
        clipped += answer.clipped > 0
        rows.append(
            {"overlap": kinds.get(path, "")} | said | {"distance": answer.distance} | shares
        )
    if clipped:
        log.info(
            "%d images have pixels brighter than in any training image: these count as white",
            clipped,
        )
    known = asked[["path", "folder", "label"]].assign(
        split=ALL, group=group_duplicates(asked.path, alike)
    )
    return known.join(pd.DataFrame(rows))


def score(
    predictions: pd.DataFrame, assessed: Subject, bins: int, overlap_is_known: bool
) -> dict[str, float]:
    """Return flat metrics of all images (`external_`) and of those that do not overlap, with the model's own of its test.

    `predictions` is what `predict` returned, read back.
    """
    parts = {ALL: predictions} | (
        {REST: predictions[predictions.overlap == ""]} if overlap_is_known else {}
    )
    scores: dict[str, float] = {"temperature": assessed.temperature}
    for prefix, rows in parts.items():
        numbers: dict[str, float] = {"images": len(rows), "classes": rows.label.nunique()}
        if len(rows):
            numbers |= (
                score_part(rows, assessed.temperature, bins) | bounds(rows) | judge(rows, assessed)
            )
        scores |= {f"{prefix}_{name}": value for name, value in numbers.items()}
    return {
        name: value if isinstance(value, int) else float(f"{value:.7g}")
        for name, value in (scores | assessed.own).items()
    }


def judge(rows: pd.DataFrame, assessed: Subject) -> dict[str, float]:
    """Return how many the model answers, how many of them rightly, and how many images are unfamiliar to it, as it said itself."""
    limits, right = assessed.predictor.thresholds, (rows.predicted == rows.label).to_numpy()
    answered, unfamiliar = (
        (rows[name] == said).to_numpy(float)
        for name, said in (("abstained", "False"), ("unfamiliar", "True"))
    )
    return model_record.judgements(
        None if limits.confidence is None else abstaining(answered, right, 0.5),
        None if limits.distance is None else alarms(unfamiliar, 0.5),
    )


def track(
    images: Path, output: Path, assessed: Subject, scores: Mapping[str, float], sha256: str
) -> None:
    """Leave an MLflow run with the numbers and the report, so that it is known what was asked of which model."""
    tags = {
        "assessed_images": str(images.resolve()),
        "images_sha256": sha256,
        "model_sha256": assessed.predictor.sha256,
    }
    name, shown = (
        f"assess {images.resolve().name}",
        {key: value for key, value in scores.items() if key.startswith(ALL)},
    )
    with runs.recorded(
        lambda: mlflow.start_run(
            experiment_id=runs.open_store(), run_name=name, tags=tags | assessed.tags
        )
    ):
        runs.record(
            lambda: mlflow.log_metrics({make_key(key): value for key, value in shown.items()})
        )
        for file in (page.PAGE, page.SHORT, METRICS_JSON):
            runs.record(lambda file=file: mlflow.log_artifact(str(output / file)))


def tell(scores: Mapping[str, float], output: Path) -> None:
    """Log what a person wants to know; the last line says where the report is."""
    for prefix, words in (
        (ALL, "all images"),
        (REST, "without overlap"),
        ("test", "own test images"),
    ):
        if f"{prefix}_accuracy" in scores:
            images = f"{scores[f'{prefix}_images']} images" if f"{prefix}_images" in scores else ""
            log.info(
                "%-15s accuracy %.3f (%.3f to %.3f)  macro F1 %.3f  calibration error %.3f  %s",
                words, *(scores.get(f"{prefix}_{name}", float("nan")) for name in
                         ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "calibration_error")), images,
            )  # fmt: skip
    log.info("%s", output / page.PAGE)


if __name__ == "__main__":
    run(main, of_pipeline=False)
