"""Tables keep their text, and equal tables are equal bytes."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.errors import UserError
from tasks.tables import escape_controls, read_foreign_table, read_table, write_table
from tests.support.names import names, quick

NAMES = [
    "01",
    "1e3",
    "NA",
    "nan",
    "None",
    "true",
    "",
    " spaced ",
    "tumeur née",
    "肿瘤",
    'a "quoted", name',
    "two\nlines",
]


def test_text_survives(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"label": NAMES, "predicted": NAMES[::-1]}), tmp_path / "table.csv")
    table = read_table(tmp_path / "table.csv")
    assert table.label.tolist() == NAMES
    assert table.predicted.tolist() == NAMES[::-1]


@quick
@given(
    st.lists(st.tuples(names(), names()), max_size=5), st.lists(names(), max_size=3, unique=True)
)
def test_every_name_is_read_back_as_it_was_written(
    rows: list[tuple[str, str]], classes: list[str]
) -> None:
    table = pd.DataFrame(rows, columns=["path", "label"], dtype=str).assign(
        **{f"p_{name}": 0.25 for name in classes}
    )
    with TemporaryDirectory() as folder:
        write_table(table, Path(folder, "table.csv"))
        read = read_table(Path(folder, "table.csv"))
    assert read.columns.tolist() == table.columns.tolist() and read[["path", "label"]].equals(
        table[["path", "label"]]
    )


@quick
@given(names(), names())
@example("a\nb", "a\\nb")
def test_a_name_is_printed_on_one_line_of_its_own(one: str, other: str) -> None:
    assert escape_controls(one).isprintable() and (
        escape_controls(one) == escape_controls(other)
    ) == (one == other)
    assert escape_controls("tumeur née (1)") == "tumeur née (1)"


def test_numbers_are_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "path": ["1", "2"],
            "bytes": [10, 20],
            "mean": [0.5, 1.25],
            "p_01": [0.1, 0.9],
            "p_NA": [0.9, 0.1],
        }
    )
    write_table(table, tmp_path / "table.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table)


def test_a_number_that_is_missing_stays_missing(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("path,width\na,\nb,7\n")
    width = read_table(tmp_path / "table.csv").width
    assert pd.isna(width[0]) and width[1] == 7


def test_text_among_the_numbers_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("path,width\na,wide\n")
    with pytest.raises(ValueError, match="wide"):
        read_table(tmp_path / "table.csv")


def test_seven_digits_unix_lines_and_new_folders(tmp_path: Path) -> None:
    write_table(
        pd.DataFrame({"share": [1 / 3, 1.0, 12345678.9]}), tmp_path / "new/folder/table.csv"
    )
    assert (
        tmp_path / "new/folder/table.csv"
    ).read_bytes() == b"share\n0.3333333\n1\n1.234568e+07\n"


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    write_table(pd.DataFrame(columns=["path", "reason", "bytes"]), tmp_path / "table.csv")
    table = read_table(tmp_path / "table.csv")
    assert table.empty and list(table.columns) == ["path", "reason", "bytes"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,patient\na,Mü\n", "utf-8-sig"),
        ("patient\tPath\nMü\ta\n", "utf-16"),
        ('"path";more;"patient"\r\n"a";";";Mü', "utf-8"),
    ],
)
def test_tables_of_spreadsheets_are_read(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "table.csv").write_bytes(text.encode(encoding))
    assert read_foreign_table(tmp_path / "table.csv", ("path", "patient")).values.tolist() == [
        ["a", "Mü"]
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"path,patient\na,b\nc,M\xfc\n",
            "table.csv, line 3: byte 0xfc is not UTF-8; save the table as UTF-8",
        ),
        (
            b"path,patient\na,b\n\nc\n",
            "table.csv, line 4: expected 2 cells as in the first line, received 1",
        ),
        (
            b"path,patient,Path\n",
            "line 1: expected the columns path, patient, each once; received path, patient, path",
        ),
        (b"", "expected the columns path, patient, each once; received an empty file"),
        (b'path,patient\n"a,b\n', "this is no CSV file (unexpected end of data)"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_encoding(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_foreign_table(tmp_path / "table.csv", ("path", "patient"))
    assert message in str(caught.value)
