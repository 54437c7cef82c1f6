"""What each section of `params.yaml` may hold, as closed, typed models with their defaults. `params.py` reads the file."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.ensembles import Ensemble
from tasks.imaging.changes import Augmentation
from tasks.imaging.form import Form, View
from tasks.modeling.architectures import Classical, Cnn, Transfer
from tasks.questions import Question
from tasks.ranges import Tune

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
    keep: Literal["best", "last"] = "best"  # which epoch's weights: the best of what early stopping watches, or the last one's
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
