"""The judgement of Great Expectations on the table of files, with its Data Docs."""

import html
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from PIL import Image

from tasks.params.validate import Expectations

NAMED = 10  # offenders that a message names; validation.json has all of them
ENDINGS = {
    **Image.registered_extensions(),
    ".dcm": "DICOM",
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIF"),
}


@dataclass(frozen=True)
class Rule:
    """An expectation on one of the tables, with its limit and in words."""

    table: str
    make: Callable[[float], gxe.Expectation]
    wanted: str


RULES = {
    "usable_share": Rule(
        "files",
        lambda share: gxe.ExpectColumnValuesToBeInSet(
            column="status", value_set=["usable"], mostly=share
        ),
        "at least {:.0%} of the files to be usable images",
    ),
    "classes": Rule(
        "classes",
        lambda count: gxe.ExpectTableRowCountToBeBetween(min_value=int(count)),
        "at least {:g} classes",
    ),
    "images_per_class": Rule(
        "classes",
        lambda count: gxe.ExpectColumnValuesToBeBetween(column="images", min_value=count),
        "at least {:g} usable images in each class",
    ),
    "imbalance": Rule(
        "classes",
        lambda ratio: gxe.ExpectColumnValuesToBeBetween(column="imbalance", max_value=ratio),
        "the largest class to have at most {:g} times the images of any other",
    ),
    "side": Rule(
        "images",
        lambda pixels: gxe.ExpectColumnValuesToBeBetween(column="side", min_value=pixels),
        "images of at least {:g} pixels on the shorter side",
    ),
    "contrast": Rule(
        "images",
        lambda std: gxe.ExpectColumnValuesToBeBetween(column="std", min_value=std),
        "grey values with a standard deviation of at least {:g}",
    ),
    "levels": Rule(
        "images",
        lambda count: gxe.ExpectColumnValuesToBeBetween(column="levels", min_value=count),
        "images that use at least {:g} of the 256 grey values",
    ),
    "distinct_share": Rule(
        "images",
        lambda share: gxe.ExpectColumnValuesToBeUnique(column="sha256", mostly=share),
        "at least {:.0%} of the images to have a content of their own",
    ),
    "format_matches_name": Rule(
        "images",
        lambda _: gxe.ExpectColumnValuesToBeInSet(column="name_fits", value_set=[True]),
        "file names that end as the format of the content does",
    ),
}


def validate_expectations(
    files: pd.DataFrame, expectations: Expectations, data_docs: Path
) -> list[dict[str, Any]]:
    """Return one result per expectation that is not off, and write the pages to `data_docs`.

    A result has `expectation, level, met, message, offenders` (paths or class names).
    """
    context = _make_context(data_docs)
    results = []
    for table, frame in _make_tables(files).items():
        names = [
            name
            for name, rule in RULES.items()
            if rule.table == table and getattr(expectations, name).level != "off"
        ]
        limits = {name: _get_limit(getattr(expectations, name)) for name in names}
        outcomes = _validate_table(context, table, frame, limits) if names else []
        for name, outcome in zip(names, outcomes, strict=True):
            level = getattr(expectations, name).level
            results.append(_make_result(name, level, limits[name], outcome, frame))
    context.build_data_docs()
    return results


def _make_context(data_docs: Path) -> gx.data_context.EphemeralDataContext:
    shutil.rmtree(data_docs, ignore_errors=True)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    store = {
        "class_name": "TupleFilesystemStoreBackend",
        "base_directory": str(data_docs.resolve()),
    }
    context.update_data_docs_site(
        "local_site", {"class_name": "SiteBuilder", "store_backend": store}
    )
    return context


def _make_tables(files: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables that the rules are about: files, classes and usable images."""
    usable = files[files.status == "usable"]
    images = usable.assign(
        side=usable[["width", "height"]].min(axis=1),
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


def _get_limit(threshold: Any) -> float:
    return getattr(threshold, "minimum", getattr(threshold, "maximum", 0))


def _validate_table(
    context: gx.data_context.EphemeralDataContext,
    table: str,
    frame: pd.DataFrame,
    limits: dict[str, float],
) -> list[Any]:
    """Return Great Expectations' results on a table, in the order of `limits`."""
    source = context.data_sources.add_pandas(table)
    batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe(table)
    suite = context.suites.add(gx.ExpectationSuite(table))
    for name, limit in limits.items():
        suite.add_expectation(RULES[name].make(limit))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=table, data=batch, suite=suite)
    )
    checkpoint = gx.Checkpoint(
        name=table,
        validation_definitions=[definition],
        actions=[gx.checkpoint.UpdateDataDocsAction(name="docs")],
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["path"],
        },
    )
    # The pages would read a path as HTML.
    escaped = frame.assign(path=frame.path.map(html.escape))
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": escaped})
    return list(next(iter(outcome.run_results.values())).results)


def _make_result(
    name: str, level: str, limit: float, outcome: Any, frame: pd.DataFrame
) -> dict[str, Any]:
    rule = RULES[name]
    if name == "classes":
        offenders, found = sorted(frame.path), f"found {len(frame)}"
    else:
        unexpected = outcome.result.get("unexpected_index_list") or []
        offenders = sorted(html.unescape(row["path"]) for row in unexpected)
        found = f"{len(offenders)} of {len(frame)} {rule.table} do not"
    more = f" and {len(offenders) - NAMED} more" if len(offenders) > NAMED else ""
    listed = f": {', '.join(offenders[:NAMED])}{more}" if offenders else ""
    return {
        "expectation": name,
        "level": level,
        "met": bool(outcome.success),
        "message": f"expected {rule.wanted.format(limit)}; {found}{listed}",
        "offenders": offenders,
    }
