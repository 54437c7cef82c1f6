"""Great Expectations' judgement on the table of files, with its Data Docs."""

import html
import shutil
from collections.abc import Callable
from pathlib import Path

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from PIL import Image

from tasks.params.validate import Expectations

NAMED = 10  # how many offenders a message names; validation.json has all

Rule = tuple[str, Callable[[float], gxe.Expectation], str]
# name: (table, expectation of a threshold, what is wanted in words)
RULES: dict[str, Rule] = {
    "usable_share": (
        "files",
        lambda share: gxe.ExpectColumnValuesToBeInSet(
            column="status", value_set=["usable"], mostly=share
        ),
        "at least {:.0%} of the files to be usable images",
    ),
    "classes": (
        "classes",
        lambda count: gxe.ExpectTableRowCountToBeBetween(min_value=int(count)),
        "at least {:g} classes",
    ),
    "images_per_class": (
        "classes",
        lambda count: gxe.ExpectColumnValuesToBeBetween(column="images", min_value=count),
        "at least {:g} usable images in each class",
    ),
    "imbalance": (
        "classes",
        lambda ratio: gxe.ExpectColumnValuesToBeBetween(column="imbalance", max_value=ratio),
        "the largest class to have at most {:g} times the images of any other",
    ),
    "side": (
        "images",
        lambda pixels: gxe.ExpectColumnValuesToBeBetween(column="side", min_value=pixels),
        "images of at least {:g} pixels on the shorter side",
    ),
    "contrast": (
        "images",
        lambda std: gxe.ExpectColumnValuesToBeBetween(column="std", min_value=std),
        "grey values with a standard deviation of at least {:g}",
    ),
    "levels": (
        "images",
        lambda count: gxe.ExpectColumnValuesToBeBetween(column="levels", min_value=count),
        "images that use at least {:g} of the 256 grey values",
    ),
    "distinct_share": (
        "images",
        lambda share: gxe.ExpectColumnValuesToBeUnique(column="sha256", mostly=share),
        "at least {:.0%} of the images to have a content of their own",
    ),
    "format_matches_name": (
        "images",
        lambda _: gxe.ExpectColumnValuesToBeInSet(column="name_fits", value_set=[True]),
        "file names that end as the format of the content does",
    ),
}


def judge(files: pd.DataFrame, expectations: Expectations, data_docs: Path) -> list[dict]:
    """Return one result per expectation that is not off, and write Great Expectations' pages to `data_docs`.

    A result has `expectation, level, met, message, offenders` (paths or class names).
    """
    context = _context(data_docs)
    tables = _tables(files)
    asked = {
        name: getattr(expectations, name)
        for name in RULES
        if getattr(expectations, name).level != "off"
    }
    results = []
    for table, frame in tables.items():
        names = [name for name in asked if RULES[name][0] == table]
        for name, outcome in zip(
            names,
            _validate(context, table, frame, [(name, asked[name]) for name in names]),
            strict=True,
        ):
            results.append(_result(name, asked[name], outcome, frame))
    context.build_data_docs()
    return results


def _context(data_docs: Path) -> gx.data_context.EphemeralDataContext:
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


def _tables(files: pd.DataFrame) -> dict[str, pd.DataFrame]:
    endings = {**Image.registered_extensions(), ".dcm": "DICOM"} | dict.fromkeys(
        (".heic", ".heif", ".hif"), "HEIF"
    )
    images = files[files.status == "usable"].assign(
        side=lambda rows: rows[["width", "height"]].min(axis=1),
        name_fits=lambda rows: [
            endings.get(Path(path).suffix.lower()) in (form, {"MPO": "JPEG"}.get(form))
            for path, form in zip(rows.path, rows.format, strict=True)
        ],
    )
    labels = sorted(set(files.label) - {""})
    counts = images.label.value_counts().reindex(labels, fill_value=0)
    classes = pd.DataFrame(
        {
            "path": labels,
            "images": counts.values,
            "imbalance": counts.max() / counts.clip(lower=0.5).values,
        }
    )
    return {"files": files[files.status != "aside"], "classes": classes, "images": images}


def _validate(
    context: gx.data_context.EphemeralDataContext, table: str, frame: pd.DataFrame, asked: list
) -> list:
    if not asked:
        return []
    source = context.data_sources.add_pandas(table)
    batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe(table)
    suite = context.suites.add(gx.ExpectationSuite(table))
    for name, threshold in asked:
        value = getattr(threshold, "minimum", getattr(threshold, "maximum", None))
        suite.add_expectation(RULES[name][1](value))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=table, data=batch, suite=suite)
    )
    escaped = frame.assign(
        path=frame.path.map(html.escape)
    )  # its pages show a path as the HTML that it might be
    result_format = {"result_format": "COMPLETE", "unexpected_index_column_names": ["path"]}
    checkpoint = gx.Checkpoint(
        name=table,
        validation_definitions=[definition],
        actions=[gx.checkpoint.UpdateDataDocsAction(name="docs")],
        result_format=result_format,
    )
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": escaped})
    return list(next(iter(outcome.run_results.values())).results)


def _result(name: str, threshold: object, outcome: object, frame: pd.DataFrame) -> dict:
    table, _, wanted = RULES[name]
    value = getattr(threshold, "minimum", getattr(threshold, "maximum", 0))
    offenders = sorted(
        html.unescape(row["path"]) for row in outcome.result.get("unexpected_index_list") or []
    )
    if name == "classes":
        offenders = sorted(frame.path)
    found = (
        f"{len(offenders)} of {len(frame)} {table} do not"
        if name != "classes"
        else f"found {len(frame)}"
    )
    listed = ", ".join(offenders[:NAMED]) + (
        f" and {len(offenders) - NAMED} more" if len(offenders) > NAMED else ""
    )
    message = f"expected {wanted.format(value)}; {found}{': ' + listed if listed else ''}"
    return {
        "expectation": name,
        "level": threshold.level,
        "met": bool(outcome.success),
        "message": message,
        "offenders": offenders,
    }
