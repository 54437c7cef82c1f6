"""Look at every file once: `data/files.csv`, judged by Great Expectations, and `data/decoding.json`, how files become pixels.

Each file is read whole and fully decoded, whatever its name says; what cannot be used keeps its row, with a reason.
Fails when there is nothing to look at, or when an expectation of level `error` is not met: the files are named.
Run by hand: `dvc repro --single-item validate`.
"""

import json
import logging
from pathlib import Path

import pandas as pd

from tasks.errors import UserError
from tasks.imaging import decoding
from tasks.imaging.decoding import Decoding
from tasks.imaging.picture import Limits
from tasks.params.read import read_section
from tasks.params.validate import Validate
from tasks.quality.scan import find_bits, is_deep, scan
from tasks.stage import run
from tasks.tables import write_table

log = logging.getLogger(__name__)


def main(
    raw: Path, files_csv: Path, validation_json: Path, decoding_json: Path, data_docs: Path
) -> None:
    """Write the table of all files under `raw`, how they become pixels, and the verdict on them."""
    from tasks.quality.expectations import (
        judge,
    )  # Great Expectations costs seconds, which those who only scan do without

    params = read_section("validate", Validate)
    limits = Limits(params.max_bytes, params.max_pixels)
    files = scan(raw, limits, params)
    write_table(files, files_csv, "%.3f")
    bits = find_bits(files)
    decoding.write(Decoding(bits), decoding_json)
    tell(files)
    tell_remarks(files, bits)
    results = judge(files, params.expectations, data_docs)
    validation_json.write_text(json.dumps(results, indent=2) + "\n")
    stop_on_errors(results)


def tell(files: pd.DataFrame) -> None:
    """Log what was found."""
    rejected = files[files.status == "rejected"]
    aside = int((files.status == "aside").sum())
    told = f", {aside} left aside" if aside else ""
    log.info(
        "%d files, %d usable images, %d rejected%s",
        len(files),
        len(files) - len(rejected) - aside,
        len(rejected),
        told,
    )
    for row in rejected.head(20).itertuples():
        log.info("  rejected %s: %s (%s)", row.path, row.reason, row.detail)
    if len(rejected) > 20:
        log.info("  … and %d more: see data/quarantine.csv", len(rejected) - 20)


def tell_remarks(files: pd.DataFrame, bits: int | None) -> None:
    """Log what stands in the column `detail` of usable images, and how many bits grey values have."""
    usable = files[files.status == "usable"]
    if bits is not None:
        log.info(
            "  %d images have more than 8 bits a value: where a file does not say, it counts as %d",
            is_deep(usable).sum(),
            bits,
        )
    remarks = usable.set_index("path").detail.dropna().str.split("; ").explode()
    for remark, rows in remarks.groupby(
        remarks.str.replace(r" \(.*%\)$", "", regex=True).to_numpy()
    ):
        log.info("  usable, with %s: %d images, such as %s", remark, len(rows), rows.index[0])


def stop_on_errors(results: list[dict]) -> None:
    """Log every expectation that is not met. Raises `UserError` when one of them is of level error."""
    failed = [result for result in results if not result["met"]]
    lines = [
        f"{result['level']}: {result['expectation']}: {result['message']}" for result in failed
    ]
    for line in lines:
        log.info("  %s", line)
    errors = [
        line for line, result in zip(lines, failed, strict=True) if result["level"] == "error"
    ]
    if errors:
        raise UserError(
            "\n  ".join(
                [
                    "the images do not meet what params.yaml expects of them (validate.expectations):",
                    *errors,
                ]
            )
            + "\nMend the files at their source, or change the threshold or its level."
        )


if __name__ == "__main__":
    run(main)
