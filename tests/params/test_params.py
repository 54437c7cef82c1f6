"""A wrong key, type or value in params.yaml is named together with what is allowed there."""

import json
import re
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
from pydantic import ValidationError

from tasks.errors import UserError
from tasks.params.architectures import ARCHITECTURES
from tasks.params.augmentation import Augmentation, Elastic
from tasks.params.read import read_section
from tasks.params.register import Register
from tasks.params.section import Section
from tasks.params.split import Split
from tasks.params.tune import Tune
from tasks.params.validate import Validate
from tasks.params.whole import Params, load_params
from tests.support import ROOT


def load(tmp_path: Path, text: str) -> Params:
    (tmp_path / "params.yaml").write_text(text)
    return load_params(tmp_path / "params.yaml")


def complaint(tmp_path: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    return str(caught.value)


def test_the_file_of_the_project_is_whole() -> None:
    params = load_params(ROOT / "params.yaml")
    assert set(params.architectures) <= set(ARCHITECTURES)
    assert params.architectures["cnn_b"].structure == ARCHITECTURES["cnn_b"]


def test_the_shortest_file(tmp_path: Path) -> None:
    params = load(tmp_path, "architectures: {cnn_a: {}}")
    assert params.train == params.architectures["cnn_a"].train
    assert params.validate_.max_pixels == 100_000_000
    assert params.register_.model == "image_classifier"


def test_an_architecture_overrides_the_defaults_and_the_table(tmp_path: Path) -> None:
    params = load(
        tmp_path,
        """
        train:
          epochs: 7
          batch_size: 8
          schedule: {kind: plateau, patience: 9}
          augmentation: {rotation: 10, zoom: 0.1}
        architectures:
          cnn_a:
            batch_size: 64
            dropout: 0.25
            schedule: {patience: 2}
            augmentation: {rotation: 20}
          cnn_b:
          bare: {like: cnn_b, augmentation: null, early_stopping: null}
        """,
    )
    changed, untouched, bare = params.architectures.values()
    assert (changed.train.epochs, changed.train.batch_size, changed.structure.dropout) == (
        7,
        64,
        0.25,
    )
    assert (changed.train.schedule.kind, changed.train.schedule.patience) == ("plateau", 2)
    assert (changed.train.augmentation.rotation, changed.train.augmentation.zoom) == (20, 0.1)
    assert (untouched.train.batch_size, untouched.train.schedule.patience) == (8, 9)
    assert bare.structure == untouched.structure == ARCHITECTURES["cnn_b"]
    assert (bare.train.augmentation, bare.train.early_stopping) == (None, None)


def test_image_size_is_one_number_or_height_and_width(tmp_path: Path) -> None:
    params = load(
        tmp_path,
        "train: {image_size: [48, 64]}\narchitectures: {cnn_a: {}, cnn_b: {image_size: 32}}",
    )
    assert params.architectures["cnn_a"].train.image_size == (48, 64)
    assert params.architectures["cnn_b"].train.image_size == (32, 32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trian: {}", "trian: unknown key; did you mean train?"),
        (
            "train: {learnin_rate: 1}",
            "train.learnin_rate: unknown key; did you mean learning_rate? known here are seed",
        ),
        (
            "validate: {expectations: {sides: {}}}",
            "validate.expectations.sides: unknown key; did you mean side?",
        ),
        ("train: {epochs: 0}", "train.epochs: received 0, expected greater than or equal to 1"),
        ("train: {epochs: many}", "train.epochs: received 'many', expected a valid integer"),
        (
            "train: {optimizer: adams}",
            "train.optimizer: received 'adams', expected 'adam', 'adamw', 'rmsprop' or 'sgd'",
        ),
        ("train: {image_size: [1, 2, 3]}", "train.image_size: received [1, 2, 3]"),
        (
            "train: {augmentation: lite}",
            "train.augmentation: received 'lite', unknown augmentation; known are comparison,",
        ),
        (
            "train: {augmentation: {like: light, rotate: 1}}",
            "train.augmentation.rotate: unknown key; did you mean rotation?",
        ),
        ("train: 3", "train: received 3, expected a valid dictionary"),
        ("split: {patients: {pattern: a, table: b}}", "give a pattern or a table, not both"),
        (
            "split: {validation: 0.5, test: 0.5}",
            "split: received {'validation': 0.5, 'test': 0.5}, validation and test together",
        ),
        (
            "register: {model: a b}",
            "register.model: received 'a b', expected 1 to 200 letters, digits, hyphens",
        ),
        ("register: {model: a/b}", "register.model: received 'a/b'"),
        ("register: {model: 'a:1'}", "register.model: received 'a:1'"),
        (f"register: {{model: {'m' * 201}}}", "register.model: received"),
        ("validate: {max_pixels: 200_000_000}", "validate.max_pixels: received 200000000"),
        (
            "compare: {rank_by: test_accuracy}",
            "compare.rank_by: received 'test_accuracy', expected 'val_macro_f1'",
        ),
    ],
)
def test_a_mistake_in_a_section_is_named(tmp_path: Path, text: str, expected: str) -> None:
    message = complaint(tmp_path, f"{text}\narchitectures: {{cnn_a: {{}}}}")
    assert expected in message
    assert "has 1 mistake:" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "architectures: received {}, expected at least one of"),
        ("[cnn_a]", "architectures: received ['cnn_a'], expected at least one of"),
        (
            "{cnn_x: {}}",
            "architectures.cnn_x: unknown architecture 'cnn_x'; did you mean cnn_c? known are",
        ),
        ("{new: {like: [cnn_a]}}", "architectures.new: unknown architecture ['cnn_a']"),
        (
            "{cnn-a: {like: cnn_a}}",
            "architectures.cnn-a: received 'cnn-a', expected a text of 1 to 200 letters",
        ),
        ("{1: {like: cnn_a}}", "architectures.1: received 1, expected a text of 1 to 200 letters"),
        ("{cnn_a: 3}", "architectures.cnn_a: received 3, expected a mapping such as"),
        (
            "{cnn_a: {filter: [1]}}",
            "architectures.cnn_a.filter: unknown key; did you mean filters? known here are like,",
        ),
        (
            "{cnn_a: {filters: [0]}}",
            "architectures.cnn_a.filters.0: received 0, expected greater than or equal to 1",
        ),
        (
            "{cnn_a: {pool: [true]}}",
            "architectures.cnn_a: pool: expected 3 entries, as many as filters has, received 1",
        ),
        (
            "{cnn_a: {positive: a, labels: {b: [c], d: [e]}}}",
            "architectures.cnn_a: give positive or labels, not both",
        ),
        (
            "{cnn_a: {labels: {b: [c]}}}",
            "architectures.cnn_a.labels: received {'b': ['c']}, expected at least two classes",
        ),
        (
            "{cnn_a: {labels: {b: [c], d: []}}}",
            "architectures.cnn_a.labels: received {'b': ['c'], 'd': []}, expected at least one",
        ),
        (
            "{EfficentNetB0: {}}",
            "architectures.EfficentNetB0: unknown architecture 'EfficentNetB0'; did you mean Effi",
        ),
        (
            "{transfer: {backbone: MobilNet}}",
            "architectures.transfer.backbone: received 'MobilNet', expected an image model",
        ),
        (
            "{transfer: {head: {dropuot: 0}}}",
            "architectures.transfer.head.dropuot: unknown key; did you mean dropout?",
        ),
        (
            "{InceptionV3: {image_size: 64}}",
            "architectures.InceptionV3: image_size: received [64, 64], expected at least 75",
        ),
        (
            "{cnn_a: {augmentation: lite}}",
            "architectures.cnn_a.augmentation: received 'lite', unknown augmentation; known are",
        ),
    ],
)
def test_a_mistake_in_an_architecture_is_named(tmp_path: Path, text: str, expected: str) -> None:
    message = complaint(tmp_path, f"train: {{}}\narchitectures: {text}")
    assert expected in message
    assert "has 1 mistake:" in message


def test_the_main_question_is_one_of_an_architecture(tmp_path: Path) -> None:
    for question in ("all classes", "a or not"):
        architectures = "architectures: {cnn_a: {}, binary: {like: cnn_a, positive: a}}"
        text = f"compare: {{question: {question}}}\n{architectures}"
        assert load(tmp_path, text).compare.question == question


def test_an_unknown_main_question_is_a_mistake(tmp_path: Path) -> None:
    text = """
        compare: {question: b or not}
        architectures: {cnn_a: {}, binary: {like: cnn_a, positive: a}, cnn_b: {}}
    """
    expected = "compare.question: received 'b or not', expected 'all classes' or 'a or not'"
    assert complaint(tmp_path, text).endswith(f"has 1 mistake:\n  {expected}")
    assert "compare.question" not in complaint(
        tmp_path, text.replace("positive: a", "positives: b")
    )


def spoil(model: type[Section], path: str) -> tuple[dict[str, Any], list[str]]:
    """Return wrong values for every key and for an unknown one, and the dotted paths of them."""
    values: dict[str, Any] = {"zzz": 1}
    wrong = [f"{path}.zzz"]
    for name, field in model.model_fields.items():
        key = field.alias or name
        optional = get_args(field.annotation) if get_origin(field.annotation) is UnionType else ()
        kinds = [field.annotation, *optional]
        inner = next(
            (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None
        )
        values[key], below = (
            spoil(inner, f"{path}.{key}") if inner else ({"zzz": []}, [f"{path}.{key}"])
        )
        wrong += below
    return values, wrong


def test_every_key_of_every_section_is_closed_and_typed(tmp_path: Path) -> None:
    """All are wrong in one file, and each is named."""
    sections = {"validate": Validate, "register": Register, "tune": Tune}
    sections |= {
        key: type(field.default)
        for key, field in Params.model_fields.items()
        if isinstance(field.default, Section)
    }
    raw: dict[str, Any] = {"architectures": {}}
    wrong = []
    for key in (
        "validate",
        "split",
        "weigh",
        "train",
        "tune",
        "evaluate",
        "explain",
        "compare",
        "register",
        "report",
    ):
        raw[key], below = spoil(sections[key], key)
        wrong += below
    for name in ("cnn_a", "transfer", "random_forest"):
        raw["architectures"][name], below = spoil(
            type(ARCHITECTURES[name]), f"architectures.{name}"
        )
        wrong += below
    lines = [line.strip() for line in complaint(tmp_path, json.dumps(raw)).splitlines()]
    assert len(wrong) > 120
    assert [
        key for key in wrong if not any(re.match(rf"{re.escape(key)}[.:]", line) for line in lines)
    ] == []


def test_all_mistakes_are_reported_at_once_and_each_once(tmp_path: Path) -> None:
    message = complaint(
        tmp_path,
        "train: {epochs: 0}\nsplit: {test: 2}\n"
        "architectures: {cnn_a: {}, cnn_b: {dropout: 3}, x: {}}",
    )
    assert "has 4 mistakes:" in message
    for key in ("train.epochs", "split.test", "architectures.cnn_b.dropout", "architectures.x"):
        assert message.count(key) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "is not valid YAML"),
        ("train: {}\ntrain: {}", "duplicate key"),
        ("- a", "expected a mapping of sections, received list"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in complaint(tmp_path, text)


def test_a_missing_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make recipe NAME=demo"):
        load_params(tmp_path / "params.yaml")


def test_a_gate_may_be_null_and_a_name_as_long_as_a_folder_takes(tmp_path: Path) -> None:
    assert (
        load(tmp_path, "architectures: {cnn_a: {}}\nregister: {gate: null}").register_.gate is None
    )
    longest = "a" * 200
    assert list(load(tmp_path, f"architectures: {{{longest}: {{like: cnn_a}}}}").architectures) == [
        longest
    ]
    assert "expected a text of 1 to 200 letters" in complaint(
        tmp_path, f"architectures: {{{longest}a: {{like: cnn_a}}}}"
    )


def test_a_stage_reads_its_own_section_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train: {epochs: 0}\nsplit: {test: 0.3}")
    assert read_section("split", Split, path) == Split(test=0.3)
    path.write_text("split: {tests: 0.3}")
    with pytest.raises(
        UserError, match=r"has 1 mistake:\n  split.tests: unknown key; did you mean test\?"
    ):
        read_section("split", Split, path)


def test_params_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_params(ROOT / "params.yaml").train.epochs = 3


def test_an_augmentation_by_name_is_replaced_by_another_and_changed_by_keys(tmp_path: Path) -> None:
    params = load(
        tmp_path,
        """
        train: {augmentation: comparison}
        architectures:
          cnn_a: {}
          named: {like: cnn_a, augmentation: photo_filter}
          keys: {like: cnn_a, augmentation: {rotation: 5, elastic: {grid: 4}}}
          started: {like: cnn_a, augmentation: {like: light, rotation: 5}}
          none: {like: cnn_a, augmentation: null}
        """,
    )
    default, named, keys, started, none = (
        one.train.augmentation for one in params.architectures.values()
    )
    assert params.train.augmentation == default == Augmentation.model_validate("comparison")
    assert named == Augmentation.model_validate("photo_filter")
    assert keys == default.model_copy(update={"rotation": 5, "elastic": Elastic(grid=4)})
    assert started == Augmentation.model_validate("light").model_copy(update={"rotation": 5})
    assert none is None
