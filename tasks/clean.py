"""Usable images to `data/clean`, rejected files to `data/quarantine` with their reasons; `data/raw` is only read.

Every file keeps its relative path, so equal names in two classes stay apart. Fails when the table and the folder
disagree. Run by hand: `dvc repro --single-item clean`.
"""

import logging
import shutil
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from tasks.errors import UserError
from tasks.stage import run
from tasks.tables import read_table, write_table

log = logging.getLogger(__name__)


def main(raw: Path, files_csv: Path, clean: Path, quarantine: Path, quarantine_csv: Path) -> None:
    """Copy each file to where its status sends it, and list the rejected ones."""
    files = read_table(files_csv)
    usable, refused = files.status == "usable", files.status == "rejected"
    copy(files[usable].path, raw, clean)
    copy(files[refused].path, raw, quarantine)
    rejected = files.loc[refused, ["path", "reason", "detail", "bytes"]]
    write_table(rejected.astype({"bytes": "Int64"}), quarantine_csv)
    tell(usable.sum(), rejected)


def copy(paths: pd.Series, source: Path, target: Path) -> None:
    """Copy files to the same relative paths below `target`, which is made even where there are none."""
    target.mkdir(parents=True, exist_ok=True)
    for path in tqdm(paths, desc=target.name, unit=" files"):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source / path, target / path)
        except FileNotFoundError as error:
            raise UserError(
                f"{source / path} is listed but gone: run the validate stage again"
            ) from error


def tell(usable: int, rejected: pd.DataFrame) -> None:
    """Log how many files went where, and why."""
    reasons = ", ".join(
        f"{count} {reason}" for reason, count in rejected.reason.value_counts().sort_index().items()
    )
    log.info(
        "%d images in data/clean, %d files in data/quarantine%s",
        usable,
        len(rejected),
        f" ({reasons})" if reasons else "",
    )


if __name__ == "__main__":
    run(main)
