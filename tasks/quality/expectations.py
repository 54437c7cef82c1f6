"""Let Great Expectations judge the table of files.

Each expectation of `params.yaml` is about one of three tables: all files, the classes, or the
usable images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
)
from PIL import Image

from tasks.params.validate import Expectations
from tasks.quality.data_docs import Offender, Result
from tasks.quality.folder_names import list_names

NAMED = 10  # offenders that a message names; validation.json has all of them
ENDINGS = {
    **Image.registered_extensions(),
    ".dcm": "DICOM",
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIF"),
}


@dataclass(frozen=True)
class Rule:
    """One expectation: how Great Expectations checks it, and how a person reads it."""

    table: str
    check: Callable[[float], gxe.Expectation]
    wanted: str  # what is expected, with a place for the limit
    measure: Callable[[pd.DataFrame], float]
    found: str  # the measured value in words
    column: str  # its value explains why a row does not meet the expectation


def _at_least(table: str, column: str, wanted: str, found: str) -> Rule:
    return Rule(
        table,
        lambda limit: gxe.ExpectColumnValuesToBeBetween(column=column, min_value=limit),
        wanted,
        lambda frame: frame[column].min(),
        found,
        column,
    )


RULES = {
    "usable_share": Rule(
        "files",
        lambda share: gxe.ExpectColumnValuesToBeInSet(
            column="status", value_set=["usable"], mostly=share
        ),
        "at least {:.0%} of the files to be usable images",
        lambda files: (files.status == "usable").mean(),
        "{:.1%} of the files",
        "detail",
    ),
    "classes": Rule(
        "classes",
        lambda count: gxe.ExpectTableRowCountToBeBetween(min_value=int(count)),
        "at least {:g} classes",
        len,
        "{:g} classes",
        "images",
    ),
    "images_per_class": _at_least(
        "classes",
        "images",
        "at least {:g} usable images in each class",
        "{:g} in the smallest class",
    ),
    "imbalance": Rule(
        "classes",
        lambda ratio: gxe.ExpectColumnValuesToBeBetween(column="imbalance", max_value=ratio),
        "the largest class to have at most {:g} times the images of any other",
        lambda classes: classes.imbalance.max(),
        "{:.3g} times the smallest",
        "imbalance",
    ),
    "side": _at_least(
        "images",
        "side",
        "images of at least {:g} pixels on the shorter side",
        "{:g} pixels in the smallest image",
    ),
    "contrast": _at_least(
        "images",
        "std",
        "grey values with a standard deviation of at least {:g}",
        "{:.3g} in the flattest image",
    ),
    "levels": _at_least(
        "images",
        "levels",
        "images that use at least {:g} of the 256 grey values",
        "{:g} in the poorest image",
    ),
    "distinct_share": Rule(
        "images",
        lambda share: gxe.ExpectColumnValuesToBeUnique(column="sha256", mostly=share),
        "at least {:.0%} of the images to have a content of their own",
        lambda images: (~images.sha256.duplicated(keep=False)).mean(),
        "{:.1%} of the images",
        "content",
    ),
    "format_matches_name": Rule(
        "images",
        lambda _: gxe.ExpectColumnValuesToBeInSet(column="name_fits", value_set=[True]),
        "file names that end as the format of the content does",
        lambda images: images.name_fits.mean(),
        "{:.1%} of the images",
        "format",
    ),
}


def validate_expectations(files: pd.DataFrame, expectations: Expectations) -> list[Result]:
    """Return one result per expectation. Great Expectations judges all that are not off."""
    # This configuration has no site of pages, whose folder Great Expectations would announce.
    settings = DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults())
    context = gx.get_context(mode="ephemeral", project_config=settings)
    context.variables.progress_bars = {"globally": False}
    frames = _make_tables(files)
    batches = {}
    for table, frame in frames.items():
        asset = context.data_sources.add_pandas(table).add_dataframe_asset(table)
        definition = asset.add_batch_definition_whole_dataframe(table)
        batches[table] = definition.get_batch({"dataframe": frame})
    return [
        _check(name, getattr(expectations, name), batches[rule.table], frames[rule.table])
        for name, rule in RULES.items()
    ]


def _make_tables(files: pd.DataFrame) -> dict[str, pd.DataFrame]:
    usable = files[files.status == "usable"]
    images = usable.assign(
        side=usable[["width", "height"]].min(axis=1),
        content=usable.sha256.astype(str).str[:12],
        name_fits=[
            ENDINGS.get(Path(path).suffix.lower()) in (form, {"MPO": "JPEG"}.get(form))
            for path, form in zip(usable.path, usable.format, strict=True)
        ],
    )
    labels = sorted(set(files.label) - {""})
    counts = images.label.value_counts().reindex(labels, fill_value=0)
    imbalance = counts.max() / counts.clip(lower=0.5)
    classes = pd.DataFrame({"path": labels, "images": counts.values, "imbalance": imbalance.values})
    return {"files": files[files.status != "aside"], "classes": classes, "images": images}


def _check(name: str, threshold: Any, batch: Any, frame: pd.DataFrame) -> Result:
    """Return the result of one expectation; `met` is None if its level is off."""
    rule = RULES[name]
    limit = getattr(threshold, "minimum", getattr(threshold, "maximum", 0))
    wanted, measured = rule.wanted.format(limit), rule.measure(frame)
    found = "nothing to measure" if pd.isna(measured) else rule.found.format(measured)
    if threshold.level == "off":
        return Result(name, threshold.level, None, wanted, found)
    outcome = batch.validate(
        rule.check(limit),
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["path"],
        },
    )
    if name == "classes":
        paths, counted = sorted(frame.path), f"found {len(frame)}"
    else:
        rows = outcome.result.get("unexpected_index_list") or []
        paths = sorted(row["path"] for row in rows)
        counted = f"{len(paths)} of {len(frame)} {rule.table} do not"
    listed = f": {list_names(paths, NAMED)}" if paths else ""
    message = f"expected {wanted}; {counted}{listed}"
    offenders = _explain(paths, frame, rule.column)
    return Result(name, threshold.level, bool(outcome.success), wanted, found, message, offenders)


def _explain(paths: list[str], frame: pd.DataFrame, column: str) -> tuple[Offender, ...]:
    values = frame.set_index("path")[column]
    return tuple(
        Offender(path, f"{value:.4g}" if isinstance(value, float) else str(value))
        for path, value in values[paths].items()
    )
