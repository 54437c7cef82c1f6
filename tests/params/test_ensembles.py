"""The section `ensembles` of params: each mistake is named."""

from pathlib import Path

import pytest

from tasks.errors import UserError
from tasks.params.whole import load_params

ARCHITECTURES = """
architectures:
  cnn_a: {}
  cnn_b: {}
  binary: {like: cnn_a, positive: photo}
  coarse: {like: cnn_a, labels: {sick: [x, y], well: [z]}}
  same: {like: cnn_b, labels: {well: [z], sick: [y, x]}}
  other: {like: cnn_a, labels: {sick: [x], well: [y, z]}}
ensembles:
  """


def write(folder: Path, ensemble: str) -> Path:
    (folder / "params.yaml").write_text(ARCHITECTURES + ensemble)
    return folder / "params.yaml"


def test_the_shortest_section_is_a_soft_vote_with_weights_from_validation(tmp_path: Path) -> None:
    (committee,) = load_params(
        write(tmp_path, "committee: {members: [cnn_a, cnn_b]}")
    ).ensembles.values()
    assert (committee.members, committee.vote, committee.weights) == (
        ("cnn_a", "cnn_b"),
        "soft",
        "validation",
    )


def test_weights_may_be_given(tmp_path: Path) -> None:
    two = "members: [cnn_a, cnn_b], vote: majority"
    said = (
        f"even: {{{two}, weights: equal}}\n  uneven: {{{two}, weights: {{cnn_a: 0, cnn_b: 1.5}}}}"
    )
    ensembles = load_params(write(tmp_path, said)).ensembles
    assert ensembles["even"].weights == "equal" and ensembles["even"].vote == "majority"
    assert ensembles["uneven"].weights == {"cnn_a": 0, "cnn_b": 1.5}


def test_without_the_section_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("architectures: {cnn_a: {}}")
    assert load_params(tmp_path / "params.yaml").ensembles == {}


def test_questions_are_equal_in_any_order(tmp_path: Path) -> None:
    assert load_params(write(tmp_path, "e: {members: [coarse, same]}")).ensembles


TWO = "members: [cnn_a, cnn_b]"
POSITIVE = "not below 0 and not all 0"
MISTAKES = [
    ("e: {members: [cnn_a, cnnb]}", "ensembles.e: unknown member 'cnnb'; did you mean cnn_b?"),
    ("e: {members: [cnn_a]}", "e.members: received ['cnn_a'], expected at least two architectures"),
    ("e: {members: [cnn_a, cnn_b, cnn_a]}", "cnn_a is named twice: use weights to make a member"),
    (f"cnn_b: {{{TWO}}}", "ensembles.cnn_b: an architecture has this name already"),
    (f"../e: {{{TWO}}}", "ensembles.../e: expected a name of 1 to 200 letters, digits"),
    ("e: {members: [cnn_a, binary]}", "(cnn_a: all classes; binary: photo or not)"),
    ("e: {members: [coarse, other]}", "(coarse: sick (x, y), well (z); other: sick (x), well (y,"),
    (f"e: {{{TWO}, vote: loud}}", "e.vote: received 'loud', expected 'soft' or 'majority'"),
    (f"e: {{{TWO}, weight: equal}}", "ensembles.e.weight: unknown key; did you mean weights?"),
    (f"e: {{{TWO}, weights: best}}", "received 'best', expected validation or equal, or"),
    (f"e: {{{TWO}, weights: {{cnn_a: 1}}}}", "received weights for cnn_a, expected one for each"),
    (f"e: {{{TWO}, weights: {{cnn_a: -1, cnn_b: 2}}}}", POSITIVE),
    (f"e: {{{TWO}, weights: {{cnn_a: 0, cnn_b: 0}}}}", POSITIVE),
    (f"e: {{{TWO}, weights: {{cnn_a: .inf, cnn_b: 1}}}}", POSITIVE),
]


@pytest.mark.parametrize(("ensemble", "words"), MISTAKES)
def test_mistakes_are_named(tmp_path: Path, ensemble: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_params(write(tmp_path, ensemble))
    assert words in str(caught.value)
