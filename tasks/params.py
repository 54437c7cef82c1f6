"""`params.yaml` as closed, typed models: a wrong key, type or value stops at once and is named.

`python -m tasks.params` checks the file and prints what each architecture will be trained with.
"""

import difflib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from tasks import ensembles, ranges
from tasks.ensembles import Ensemble
from tasks.imaging.changes import Augmentation, spelled_out
from tasks.imaging.form import Form, View
from tasks.modeling.architectures import ARCHITECTURES, BACKBONES, Backbone, Classical, Cnn, Transfer
from tasks.questions import Question
from tasks.ranges import Tune

PARAMS = Path("params.yaml")

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Level = Literal["error", "warn", "off"]


class Section(BaseModel):
    """A closed, frozen part of `params.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Minimum(Section):
    minimum: float
    level: Level


class Maximum(Section):
    maximum: float
    level: Level


class Judgement(Section):
    level: Level


class Expectations(Section):
    """What the table of files is expected to fulfil; `error` stops the pipeline, `warn` is reported."""

    usable_share: Minimum = Minimum(minimum=0.8, level="error")  # files that are usable images, of all files
    classes: Minimum = Minimum(minimum=2, level="error")
    images_per_class: Minimum = Minimum(minimum=10, level="error")  # usable images
    imbalance: Maximum = Maximum(maximum=10, level="warn")  # largest class over smallest
    side: Minimum = Minimum(minimum=32, level="warn")  # pixels of the shorter side
    contrast: Minimum = Minimum(minimum=1, level="warn")  # standard deviation of the grey values, 0 to 255
    distinct_share: Minimum = Minimum(minimum=0.95, level="warn")  # files whose content no other file has
    format_matches_name: Judgement = Judgement(level="warn")


class Validate(Section):
    max_bytes: Count = 100_000_000
    max_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = 100_000_000  # Pillow refuses more
    expectations: Expectations = Expectations()


class NearCopies(Section):
    hash_distance: Annotated[int, Field(ge=0, le=64)] = 32  # differing bits of 240 that make two images worth a look
    correlation: Annotated[float, Field(gt=0, le=1)] = 0.965  # of the fine structure of 64x64 thumbnails


class Patients(Section):
    """Images of one patient stay together: a pattern with one group, or a CSV table in the image folder
    with the columns path and patient."""

    pattern: str | None = None
    table: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Patients":
        if self.pattern is not None and self.table is not None:
            raise ValueError("give a pattern or a table, not both")
        return self


class Split(Section):
    seed: int = 42
    validation: Share = 0.15  # of the training images, where no validation folder is given
    test: Share = 0.15  # likewise, where no test folder is given
    copies: Literal["withhold", "withhold_identical", "keep"] = "withhold"  # training images that copy a test or validation image
    near_copies: NearCopies = NearCopies()
    patients: Patients = Patients()

    @model_validator(mode="after")
    def _some_training_left(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on: expected less than 1")
        return self


class Weigh(Section):
    method: Literal["balanced", "none"] = "balanced"


class Schedule(Section):
    kind: Literal["constant", "plateau", "cosine"] = "plateau"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5  # plateau: the rate is multiplied by it
    patience: Count = 3  # plateau: after so many epochs without a better val_loss
    minimum: Annotated[float, Field(ge=0)] = 0.0  # plateau and cosine: the lowest rate


class EarlyStopping(Section):
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    patience: Count = 5


class Train(Section):
    """Defaults of every architecture; each key may be given again in an architecture's own section."""

    seed: int = 42
    threads: Count = 2  # of one operation: other numbers give other models
    image_size: tuple[Count, Count] = (128, 128)  # height, width
    channels: Literal[1, 3] = 3
    dark_border: Annotated[int, Field(ge=0, le=254)] | None = None  # grey value: what is darker around a picture is cut off
    detail: Count | None = None  # pixels a side that a picture is reduced to before it is stretched to image_size
    test_views: tuple[View, ...] = ()  # answers are the mean over an image and these views of it
    batch_size: Count = 32
    epochs: Count = 15
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    learning_rate: Positive = 1e-4
    schedule: Schedule = Schedule()
    early_stopping: EarlyStopping | None = EarlyStopping()
    augmentation: Augmentation | None = None

    @model_validator(mode="before")
    @classmethod
    def _square(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("image_size"), int):
            return values | {"image_size": (values["image_size"], values["image_size"])}
        return values

    @property
    def form(self) -> Form:
        """What a model takes of a picture."""
        return Form(self.image_size, self.channels, self.dark_border, self.detail)


class Architecture(Section):
    """One architecture to train: its structure, the question it answers, and how it is trained."""

    structure: Cnn | Transfer | Classical
    question: Question = Question()
    train: Train


class Abstain(Section):
    accuracy: Annotated[float, Field(gt=0, le=1)] = 0.95  # of the answers that are given, at least


class Unfamiliar(Section):
    false_alarms: Share = 0.02  # images of the known kind that are called unfamiliar, at most


class Evaluate(Section):
    """What the thresholds of `results/<architecture>/thresholds.json` shall give; null switches one off."""

    calibration_bins: Count = 15
    abstain: Abstain | None = Abstain()
    unfamiliar: Unfamiliar | None = Unfamiliar()


class Explain(Section):
    """How many validation and test images of each class are explained, the surest answers first."""

    right: Annotated[int, Field(ge=0)] = 2
    wrong: Annotated[int, Field(ge=0)] = 2


class Compare(Section):
    rank_by: Literal["val_macro_f1", "val_accuracy", "val_balanced_accuracy"] = "val_macro_f1"
    overfitting_gap: Share = 0.1  # training accuracy above validation accuracy
    question: str | None = (
        None  # the one whose winner is registered; null: all classes, or else what the first architecture is asked
    )


class Gate(Section):
    """What a version must fulfil on the test images to become champion by itself; null asks nothing."""

    macro_f1: Annotated[float, Field(ge=0, le=1)] | None = 0.6  # at least
    worst_recall: Annotated[float, Field(ge=0, le=1)] | None = 0.3  # at least, of the class that is found least
    calibration_error: Annotated[float, Field(ge=0, le=1)] | None = 0.25  # at most
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95  # of intervals and tests against the champion
    recall_margin: Annotated[float, Field(gt=0, lt=1)] | None = 0.1  # no class may lose as much, with that confidence
    images: Count = 50  # test images that neither model has seen; with fewer a person decides


class Register(Section):
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "image_classifier"
    gate: Gate = Gate()


class Report(Section):
    """What the report says beyond the results; texts that are left out are said to be missing."""

    title: str = "Image classification"
    thumbnails: bool = True  # false: no picture of an image is in the report or in MLflow
    purpose: str | None = None  # of the model
    images: str | None = None  # where they are from, and their licence
    weights: str | None = None  # the licence of pretrained weights


class Params(Section):
    """The whole of `params.yaml`."""

    validate_: Validate = Field(default=Validate(), alias="validate")
    split: Split = Split()
    weigh: Weigh = Weigh()
    train: Train = Train()
    architectures: dict[str, Architecture]
    ensembles: dict[str, Ensemble] = {}
    tune: Tune | None = None  # what `python -m flows.tune` may try; no stage reads it
    evaluate: Evaluate = Evaluate()
    explain: Explain = Explain()
    compare: Compare = Compare()
    register_: Register = Field(default=Register(), alias="register")
    report: Report = Report()


def load_params(path: Path = PARAMS) -> Params:
    """Read and check a params file. Raises `ValueError` naming every wrong key and what is allowed there."""
    raw = _read(path)
    problems: list[str] = []
    raw["architectures"] = dict(_architectures(raw, problems))
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(detail, Params) for detail in error.errors()] + problems
    problems = problems or [*_unknown_question(params), *_wrong_members(params), *_space_mistakes(params)]
    if problems:
        raise ValueError("\n  ".join([f"{path} has {len(problems)} mistake{'s' * (len(problems) > 1)}:", *problems]))
    return params


def varied(section: Architecture, values: dict[str, Any]) -> Architecture:
    """Return an architecture with other values at dotted paths, such as `dense.0`. Raises `ValueError` where they do not fit."""
    parts = ranges.varied(_parts(section), values)
    _check_size(parts["structure"], parts["train"].image_size)
    return section.model_copy(update=parts)


def _parts(section: Architecture) -> dict[str, BaseModel]:
    return {"structure": section.structure, "train": section.train}


def _space_mistakes(params: Params) -> Iterator[str]:
    """Yield what `tune.space` names or allows that no architecture takes."""
    for name, space in (params.tune.space if params.tune else {}).items():
        if name not in params.architectures:
            close = difflib.get_close_matches(name, params.architectures, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            yield f"tune.space.{name}: unknown architecture; {hint}known here are {', '.join(params.architectures)}"
        else:
            section = params.architectures[name]
            found = ranges.mistakes(space, _parts(section), partial(varied, section))
            yield from (f"tune.space.{name}.{problem}" for problem in found)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: expected in the current folder; copy one from recipes/") from None
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected a mapping of sections, received {type(raw).__name__}")
    return raw


def _architectures(raw: dict[str, Any], problems: list[str]) -> Iterator[tuple[str, Architecture]]:
    """Yield each architecture: its keys laid over its row of the table and over the training defaults."""
    sections = raw.get("architectures")
    if not isinstance(sections, dict) or not sections:
        problems.append(f"architectures: received {sections!r}, expected at least one of {', '.join(ARCHITECTURES)}")
        return
    defaults = raw.get("train") or {}
    if not _is_valid(Train, defaults):
        defaults = {}  # its mistakes are told once, under train
    for name, section in sections.items():
        try:
            architecture = _architecture(name, section or {}, defaults, problems)
        except ValueError as error:
            problems.append(f"architectures.{name}: {error}")
        else:
            if architecture is not None:
                yield name, architecture


def _architecture(name: str, section: Any, defaults: dict[str, Any], problems: list[str]) -> Architecture | None:
    """Return the architecture, or None where one of its keys is wrong, which is added to `problems`."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise ValueError(f"received {name!r}, expected a text of letters, digits and underscores: it names a folder and a stage")
    if not isinstance(section, dict):
        raise ValueError(f"received {section!r}, expected a mapping such as {{batch_size: 64}} or {{}}")
    row = _row(section.get("like", name))
    structure, question = ({key: section[key] for key in section if key in model.model_fields} for model in (type(row), Question))
    train = {key: value for key, value in section.items() if key not in {"like", *structure, *question}}
    known = ["like", *type(row).model_fields, *Question.model_fields, *Train.model_fields]
    checked: dict[str, Any] = {}
    for part, model, values in (
        ("structure", type(row), _merge(row.model_dump(), structure)),
        ("question", Question, question),
        ("train", Train, _merge(_spelled_out(defaults), _spelled_out(train))),
    ):
        try:
            checked[part] = model.model_validate(values)
        except ValidationError as error:
            problems += [_explain(detail, model, f"architectures.{name}", known) for detail in error.errors()]
    if len(checked) < 3:
        return None
    _check_size(checked["structure"], checked["train"].image_size)
    return Architecture(**checked)


def _row(like: object) -> Cnn | Transfer | Classical:
    if isinstance(like, str) and like in ARCHITECTURES:
        return ARCHITECTURES[like]
    if isinstance(like, str) and like in BACKBONES:
        return ARCHITECTURES["transfer"].model_copy(update={"backbone": like})
    close = difflib.get_close_matches(str(like), [*ARCHITECTURES, *BACKBONES], n=1)
    raise ValueError(
        f"unknown architecture {like!r}; {f'did you mean {close[0]}? ' if close else ''}known are {', '.join(ARCHITECTURES)}, "
        "and every image model of keras.applications by its name, such as EfficientNetB0. "
        "A variant says which of them it changes: cnn_d: {like: cnn_a, dropout: 0.2}"
    )


def _check_size(structure: Cnn | Transfer | Classical, size: tuple[int, int]) -> None:
    backbone = structure.features if isinstance(structure, Classical) else structure
    if isinstance(backbone, Backbone) and min(size) < BACKBONES[backbone.backbone]:
        least = BACKBONES[backbone.backbone]
        raise ValueError(f"image_size: received {list(size)}, expected at least {least} pixels a side for {backbone.backbone}")


def _unknown_question(params: Params) -> list[str]:
    asked = list(dict.fromkeys(section.question.name for section in params.architectures.values()))
    received = params.compare.question
    return (
        [] if received in (None, *asked) else [f"compare.question: received {received!r}, expected {' or '.join(map(repr, asked))}"]
    )


def _wrong_members(params: Params) -> list[str]:
    return ensembles.mistakes(params.ensembles, {name: section.question for name, section in params.architectures.items()})


def _is_valid(model: type[BaseModel], values: Any) -> bool:
    try:
        model.model_validate(values)
    except ValidationError:
        return False
    return True


def _merge(defaults: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in overrides.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _spelled_out(train: dict[str, Any]) -> dict[str, Any]:
    """Name no augmentation any more, so that a name given for one architecture replaces the default instead of joining it."""
    return {key: spelled_out(value) if key == "augmentation" else value for key, value in train.items()}


def _explain(detail: Any, model: type[BaseModel], prefix: str = "", known: list[str] | None = None) -> str:
    """One line of where, what was received and what is allowed, from an error of pydantic; `known` goes for the first level."""
    steps = [str(step) for step in detail["loc"]]
    key = ".".join([prefix, *steps] if prefix else steps)
    if detail["type"] == "extra_forbidden":
        known = known if known and len(steps) == 1 else _keys_beside(model, steps)
        close = difflib.get_close_matches(steps[-1], known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{key}: unknown key; {hint}known here are {', '.join(known)}"
    wanted = detail["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    return f"{key}: received {detail['input']!r}, {wanted}" if steps else f"{key}: {wanted}"


def _keys_beside(model: type[BaseModel], steps: list[str]) -> list[str]:
    """The keys that are known where `steps` ends, following the models of the sections on the way."""
    for step in steps[:-1]:
        field = next((field for name, field in model.model_fields.items() if (field.alias or name) == step), None)
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def main() -> None:
    """Check the file of the current folder, and print what it says of each architecture."""
    for name, architecture in load_params().architectures.items():
        print(f"{name}: {architecture.model_dump_json(indent=2)}")


if __name__ == "__main__":
    from tasks.command import run

    run(main)
