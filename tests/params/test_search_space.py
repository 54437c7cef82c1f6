"""The section `tune` of params: what may be searched, and each mistake is named."""

from pathlib import Path

import pytest

from tasks.errors import UserError
from tasks.params.search_space import Range, vary
from tasks.params.whole import Params, load_params

ARCHITECTURES = """
architectures:
  cnn_a: {}
  deep:
    like: transfer
    head: {dense: [{units: 64}, {units: 32}]}
    phases: [{trainable_from: a, epochs: 2, learning_rate: 0.1}]
  random_forest: {}
"""


def load(folder: Path, tune: str) -> Params:
    path = folder / "params.yaml"
    path.write_text(f"{ARCHITECTURES}tune: {tune}\n")
    return load_params(path)


def test_there_may_be_no_search(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(ARCHITECTURES)
    assert load_params(tmp_path / "params.yaml").tune is None


def test_ranges_and_choices(tmp_path: Path) -> None:
    text = """
      dense.0: {low: 32, high: 512, step: 32}, activation: [relu, tanh],
      learning_rate: {low: 1e-4, high: 0.01, log: true}
    """
    space = load(tmp_path, f"{{space: {{cnn_a: {{{text}}}}}}}").tune.space["cnn_a"]
    assert (space["dense.0"].ends, space["dense.0"].whole) == ((32, 512), True)
    assert space["activation"].ends == ("relu", "tanh")
    assert (
        space["learning_rate"] == Range(low=0.0001, high=0.01, log=True)
        and not space["learning_rate"].whole
    )


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (
            "{cnn_x: {dropout: [0]}}",
            "tune.space.cnn_x: unknown architecture; did you mean cnn_a? known here are",
        ),
        ("{cnn_a: {}}", "tune.space.cnn_a: received {}, Dictionary should have at least 1 item"),
        (
            "{cnn_a: {dropuot: [0]}}",
            "tune.space.cnn_a.dropuot: unknown key dropuot; did you mean dropout? known",
        ),
        (
            "{cnn_a: {schedule.patiense: [1]}}",
            "tune.space.cnn_a.schedule.patiense: unknown key patiense; did you mean patience?",
        ),
        (
            "{cnn_a: {dense.1: [8]}}",
            "tune.space.cnn_a.dense.1: received the index 1, expected one of 0",
        ),
        (
            "{cnn_a: {dropout.x: [8]}}",
            "tune.space.cnn_a.dropout.x: expected nothing after a plain value, received x",
        ),
        (
            "{cnn_a: {dropout: 0.5}}",
            "tune.space.cnn_a.dropout: received 0.5, expected a list of choices such as",
        ),
        ("{cnn_a: {dropout: [0, 0.0]}}", "expected at least one choice, and no choice twice"),
        (
            "{cnn_a: {dropout: {low: 0, hihg: 0.5}}}",
            "unknown key hihg; did you mean high? known here are low, high, step, log",
        ),
        ("{cnn_a: {dropout: {low: 0}}}", "expected numbers low and high, received high: None"),
        (
            "{cnn_a: {dropout: {low: 0.5, high: 0.1}}}",
            "tune.space.cnn_a.dropout: received {'low': 0.5, 'high': 0.1}, expected low below",
        ),
        (
            "{cnn_a: {dropout: {low: 0, high: 0.5, log: true}}}",
            "log: expected low above 0, and no step",
        ),
        (
            "{cnn_a: {dense.0: {low: 32, high: 500, step: 32}}}",
            "high: expected 32 plus a multiple of the step 32, such as 480",
        ),
        (
            "{cnn_a: {dense.0: {low: 32, high: 64, step: 0}}}",
            "step: expected a number above 0, received 0",
        ),
        (
            "{cnn_a: {dropout: {low: 0.5, high: 1.5}}}",
            "tune.space.cnn_a.dropout: received 1.5, expected less than 1",
        ),
        (
            "{cnn_a: {activation: [relu, gelu]}}",
            "tune.space.cnn_a.activation: received 'gelu', expected 'relu' or 'tanh'",
        ),
        (
            "{cnn_a: {epochs: [5, 10]}}",
            "tune.space.cnn_a.epochs: cannot be searched: the search finds the best",
        ),
        ("{deep: {phases.0.epochs: [5, 10]}}", "tune.space.deep.phases.0.epochs: cannot be"),
        (
            "{cnn_a: {seed: [1, 2]}}",
            "tune.space.cnn_a.seed: cannot be searched: a lucky seed does not",
        ),
        (
            "{deep: {image_size: [16, 64]}}",
            "tune.space.deep.image_size: image_size: received [16, 16], expected at least 32",
        ),
        (
            "{random_forest: {learning_rate: [1]}}",
            "tune.space.random_forest.learning_rate: does not apply to a classical model",
        ),
    ],
)
def test_a_mistake_in_a_space_is_named(tmp_path: Path, space: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, f"{{space: {space}}}")
    assert expected in str(error.value)
    assert "has 1 mistake:" in str(error.value)


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        (
            "{epoch: 3, space: {cnn_a: {dropout: [0]}}}",
            "tune.epoch: unknown key; did you mean epochs?",
        ),
        (
            "{objective: test_accuracy, space: {cnn_a: {dropout: [0]}}}",
            "tune.objective: received 'test_accuracy', expected",
        ),
        (
            "{folds: 1, space: {cnn_a: {dropout: [0]}}}",
            "tune.folds: received 1, expected greater than or equal to 2",
        ),
    ],
)
def test_a_mistake_beside_the_space_is_named(tmp_path: Path, tune: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, tune)
    assert expected in str(error.value)


def test_values_at_dotted_paths(tmp_path: Path) -> None:
    deep = load(tmp_path, "{space: {cnn_a: {dropout: [0]}}}").architectures["deep"]
    values = {
        "head.dense.1.units": 8,
        "phases.0.learning_rate": 0.5,
        "augmentation.rotation": 3,
        "early_stopping": None,
    }
    changed = vary(deep, values)
    assert [dense.units for dense in changed.structure.head.dense] == [64, 8]
    assert (
        changed.structure.phases[0].learning_rate == 0.5
        and changed.structure.phases[0].trainable_from == "a"
    )
    assert changed.train.augmentation.rotation == 3 and changed.train.early_stopping is None
    assert vary(deep, {}) == deep and deep.structure.head.dense[1].units == 32
