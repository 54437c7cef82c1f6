"""Copy usable images to `data/clean` and rejected files to `data/quarantine`, with their reasons.

Every file keeps its relative path, so files of the same name in two classes stay apart. `data/raw`
is only read. The stage fails if a file of the table is missing.
Run by hand: `dvc repro --single-item clean`.
"""

import logging
import shutil
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from tasks.errors import UserError
from tasks.stage import run
from tasks.tables import read_table, write_table

QUARANTINE_COLUMNS = {
    "path": "The path of the file below data/raw and data/quarantine.",
    "reason": "Why the file is rejected, as a code.",
    "detail": "What was found, in words.",
    "bytes": "The size of the file in bytes; empty if it could not be read.",
}

log = logging.getLogger(__name__)


def main(raw: Path, files_csv: Path, clean: Path, quarantine: Path, quarantine_csv: Path) -> None:
    """Copy each file to the folder of its status, and list the rejected ones."""
    files = read_table(files_csv)
    usable, refused = files.status == "usable", files.status == "rejected"
    copy(files[usable].path, raw, clean)
    copy(files[refused].path, raw, quarantine)
    rejected = files.loc[refused, list(QUARANTINE_COLUMNS)]
    write_table(rejected.astype({"bytes": "Int64"}), quarantine_csv)
    log_counts(usable.sum(), rejected)


def copy(paths: pd.Series, source: Path, target: Path) -> None:
    """Copy files to the same relative paths below `target`, which is created in any case."""
    target.mkdir(parents=True, exist_ok=True)
    for path in tqdm(paths, desc=target.name, unit=" files"):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source / path, target / path)
        except FileNotFoundError as error:
            raise UserError(
                f"{source / path} is listed but gone: run the validate stage again"
            ) from error


def log_counts(usable: int, rejected: pd.DataFrame) -> None:
    """Log how many files went to each folder, and for which reasons."""
    counts = rejected.reason.value_counts().sort_index()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    log.info(
        "images in data/clean: %d, files in data/quarantine: %d%s",
        usable,
        len(rejected),
        f" ({reasons})" if reasons else "",
    )


if __name__ == "__main__":
    run(main)
