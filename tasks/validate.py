"""Look at every file once, and let Great Expectations judge the table of files.

Each file is read whole and decoded, whatever its name says. A file that cannot be used keeps its
row in `data/files.csv`, with a reason. `data/decoding.json` gets the bit depth of the set, and
`data/data_docs/index.html` shows every expectation with the files that do not meet it.
The stage fails if there is no file, or if an expectation of level `error` is not met: the message
names the files. Run by hand: `dvc repro --single-item validate`.
"""

import logging
from pathlib import Path

from tasks.errors import UserError
from tasks.imaging.bit_depth import write_bit_depth
from tasks.imaging.picture import Limits
from tasks.params.read import read_section
from tasks.params.validate import Validate
from tasks.quality.data_docs import PAGE, Result, write_page, write_results
from tasks.quality.scan import Scan, is_deep, scan
from tasks.stage import run
from tasks.tables import write_table

NAMED = 20  # rejected files that the log names

log = logging.getLogger(__name__)


def main(
    raw: Path, files_csv: Path, validation_json: Path, decoding_json: Path, data_docs: Path
) -> None:
    """Write the table of all files under `raw`, its bit depth, and the results of the checks."""
    # Great Expectations takes seconds to import, and a scan does not need it.
    from tasks.quality.expectations import validate_expectations

    params = read_section("validate", Validate)
    found = scan(raw, Limits(params.max_bytes, params.max_pixels), params)
    write_table(found.files, files_csv, "%.3f")
    write_bit_depth(found.bits, decoding_json)
    log_files(found)
    log_remarks(found)
    results = validate_expectations(found.files, params.expectations)
    write_results(results, validation_json)
    write_page(found, results, data_docs)
    stop_on_errors(results, data_docs / PAGE)


def log_files(found: Scan) -> None:
    """Log how many files are usable, and name the rejected ones."""
    counts = found.files.status.value_counts()
    rejected = found.files[found.files.status == "rejected"]
    aside = f", left aside: {counts['aside']}" if "aside" in counts else ""
    log.info(
        "files: %d, usable images: %d, rejected: %d%s",
        len(found.files),
        counts.get("usable", 0),
        len(rejected),
        aside,
    )
    for row in rejected.head(NAMED).itertuples():
        log.info("  rejected %s: %s (%s)", row.path, row.reason, row.detail)
    if len(rejected) > NAMED:
        log.info("  … and %d more: see data/quarantine.csv", len(rejected) - NAMED)


def log_remarks(found: Scan) -> None:
    """Log the bit depth of the set, and the remarks on usable images with an example."""
    if found.bits is not None:
        usable = found.files[found.files.status == "usable"]
        log.info(
            "  images of more than 8 bits a value: %d; if a file declares no bit depth, it is %d",
            is_deep(usable).sum(),
            found.bits,
        )
    for remark, paths in found.remarks.items():
        log.info("  usable images with %s: %d, such as %s", remark, len(paths), paths[0])


def stop_on_errors(results: list[Result], page: Path) -> None:
    """Log the warnings. Raises `UserError` if an expectation of level error is not met."""
    errors = []
    for result in results:
        if result.met is False:
            line = f"{result.level}: {result.expectation}: {result.message}"
            if result.level == "error":
                errors.append(line)
            else:
                log.info("%s", line)
    if errors:
        title = "the images do not meet what params.yaml expects of them (validate.expectations):"
        remedy = (
            f"{page} shows them. Mend the files at their source, or change the limit or its level."
        )
        raise UserError("\n  ".join([title, *errors]) + f"\n{remedy}")


if __name__ == "__main__":
    run(main)
