"""Lines are appended and none is lost silently. They decide rollbacks and what a person blocks."""

import json
import logging
from pathlib import Path

import pytest

from tasks.registry.promotions import (
    LOOK,
    PROMOTION,
    ROLLBACK,
    Line,
    append,
    find_blocking_decision,
    find_last_change,
    find_look,
    find_previous_champion,
    read,
)


def line(
    event: str, model: str, before: str | None, after: str | None, when: int = 0, **facts: object
) -> Line:
    return {
        "when": f"2026-01-{when + 1:02}T00:00:00.000000Z",
        "event": event,
        "model": "m",
        "model_sha256": model,
        "champion_before_sha256": before,
        "champion_sha256": after,
        **facts,
    }


def story(*lines: tuple[str, str, str | None, str | None]) -> list[Line]:
    return [line(*parts, when=number) for number, parts in enumerate(lines)]


FIRST, SECOND = (LOOK, "a", None, "a"), (LOOK, "b", "a", "b")


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "data/promotions.jsonl"
    lines = [
        line(LOOK, "a", None, "a", reason='a "wörd"\nand another'),
        line(ROLLBACK, "b", "a", "b"),
    ]
    assert read(path) == []
    for one in lines:
        append(path, one)
    assert read(path) == lines
    assert path.read_text().count("\n") == 2


@pytest.mark.parametrize("torn", [b'{"when": "2026-01-02T00:00', b"\xff\xfe", b"[1, 2]", b"{}"])
def test_a_half_written_line_is_reported_and_kept_and_spoils_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "promotions.jsonl"
    before, after = line(LOOK, "a", None, "a"), line(LOOK, "b", "a", "b")
    append(path, before)
    with path.open("ab") as file:
        file.write(torn)
    assert read(path) == [before]
    assert "promotions.jsonl, line 2 is incomplete" in caplog.text
    append(path, after)
    assert read(path) == [before, after]
    assert torn in path.read_bytes()


def test_a_whole_line_that_lacks_its_end_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "promotions.jsonl"
    lines = [line(LOOK, "a", None, "a"), line(LOOK, "b", "a", "b")]
    path.write_text(json.dumps(lines[0]))
    append(path, lines[1])
    assert read(path) == lines and not caplog.text


def test_the_last_change_is_no_refused_look() -> None:
    lines = story(FIRST, (LOOK, "b", "a", "a"))
    assert find_last_change(lines)["champion_sha256"] == "a"
    assert find_last_change([]) is None


@pytest.mark.parametrize(
    ("lines", "before"),
    [
        ([], None),
        ([FIRST], None),
        ([FIRST, SECOND], "a"),
        ([FIRST, SECOND, (LOOK, "c", "b", "b")], "a"),
        ([FIRST, SECOND, (ROLLBACK, "a", "b", "a")], None),
        ([FIRST, SECOND, (LOOK, "c", "b", "c"), (ROLLBACK, "b", "c", "b")], "a"),
        ([FIRST, SECOND, (ROLLBACK, "a", "b", "a"), (LOOK, "c", "a", "c")], "a"),
        ([FIRST, SECOND, (PROMOTION, "a", "b", "a")], "b"),
        ([(LOOK, "b", "x", "b")], "x"),
    ],
)
def test_a_rollback_restores_the_previous_champion(lines: list[tuple], before: str | None) -> None:
    assert find_previous_champion(story(*lines)) == before


@pytest.mark.parametrize(
    ("lines", "candidate", "champion", "held"),
    [
        ([FIRST, SECOND], "a", "b", False),  # only the gate decided
        ([FIRST, SECOND, (ROLLBACK, "a", "b", "a")], "b", "a", True),  # rolled back
        ([FIRST, SECOND, (ROLLBACK, "a", "b", "a")], "c", "a", False),  # a new one
        (
            [FIRST, (LOOK, "c", "a", "a"), (PROMOTION, "b", "a", "b")],
            "c",
            "b",
            True,
        ),  # known when a person chose b
        (
            [FIRST, (LOOK, "c", "a", "a"), (PROMOTION, "b", "a", "b")],
            "a",
            "b",
            True,
        ),  # the one that a person replaced
        (
            [FIRST, (PROMOTION, "b", "a", "b"), (LOOK, "c", "b", "b")],
            "c",
            "b",
            False,
        ),  # known only since
        (
            [FIRST, SECOND, (ROLLBACK, "a", "b", "a"), (LOOK, "c", "a", "c")],
            "b",
            "c",
            True,
        ),  # rolled back for good
        (
            [
                FIRST,
                SECOND,
                (ROLLBACK, "a", "b", "a"),
                (PROMOTION, "b", "a", "b"),
                (LOOK, "c", "b", "c"),
            ],
            "b",
            "c",
            False,
        ),
    ],
)
def test_a_persons_decision_blocks_the_models_known_then(
    lines: list[tuple], candidate: str, champion: str, held: bool
) -> None:
    assert (find_blocking_decision(story(*lines), candidate, champion) is not None) == held


def test_a_look_is_known_by_models_images_and_criteria() -> None:
    look = line(LOOK, "b", "a", "a", hashes={"test": "t"}, gate={"macro_f1": 0.5})
    lines = [line(ROLLBACK, "b", "c", "a"), look]
    assert find_look(lines, "b", "a", "t", {"macro_f1": 0.5}) is look
    for other in (
        ("c", "a", "t", {"macro_f1": 0.5}),
        ("b", "c", "t", {"macro_f1": 0.5}),
        ("b", "a", "u", {"macro_f1": 0.5}),
        ("b", "a", "t", {"macro_f1": 0.6}),
    ):
        assert find_look(lines, *other) is None
