"""The architectures that can be built, as a table of plain data, and the section `architectures`, which is laid over it.

`layers.py`, `backbones.py` and `classical.py` in `tasks/modeling/` build them.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from tasks.errors import UserError
from tasks.params.augmentation import spelled_out
from tasks.params.questions import Question
from tasks.params.read import PARAMS, describe_problem, read_file, refuse
from tasks.params.section import Count, Positive, Section, Share
from tasks.params.train import Train

Activation = Literal["relu", "tanh"]

# The image models of keras.applications, and the smallest side in pixels that each of them takes without its top.
BACKBONES: dict[str, int] = {
    "ConvNeXtBase": 32, "ConvNeXtLarge": 32, "ConvNeXtSmall": 32, "ConvNeXtTiny": 32, "ConvNeXtXLarge": 32,
    "DenseNet121": 32, "DenseNet169": 32, "DenseNet201": 32,
    "EfficientNetB0": 32, "EfficientNetB1": 32, "EfficientNetB2": 32, "EfficientNetB3": 32, "EfficientNetB4": 32,
    "EfficientNetB5": 32, "EfficientNetB6": 32, "EfficientNetB7": 32,
    "EfficientNetV2B0": 32, "EfficientNetV2B1": 32, "EfficientNetV2B2": 32, "EfficientNetV2B3": 32,
    "EfficientNetV2L": 32, "EfficientNetV2M": 32, "EfficientNetV2S": 32,
    "InceptionResNetV2": 75, "InceptionV3": 75, "MobileNet": 32, "MobileNetV2": 32, "MobileNetV3Large": 32,
    "MobileNetV3Small": 32, "NASNetLarge": 32, "NASNetMobile": 32,
    "ResNet50": 32, "ResNet50V2": 32, "ResNet101": 32, "ResNet101V2": 32, "ResNet152": 32, "ResNet152V2": 32,
    "VGG16": 32, "VGG19": 32, "Xception": 71,
}  # fmt: skip


def _known_backbone(name: str) -> str:
    if name not in BACKBONES:
        close = difflib.get_close_matches(name.lower(), [known.lower() for known in BACKBONES], n=1)
        hint = (
            f"did you mean {next(known for known in BACKBONES if known.lower() == close[0])}? "
            if close
            else ""
        )
        raise ValueError(
            f"expected an image model of keras.applications; {hint}known are {', '.join(BACKBONES)}"
        )
    return name


class Structure(Section):
    """What the rest of the pipeline asks of every kind of model, without TensorFlow.

    A new kind is a subclass here, a name in `AnyStructure`, and a module in `tasks/modeling` with
    its row in `kinds.KINDS`.
    """

    kind: ClassVar[str]
    in_epochs: ClassVar[bool] = True  # whether it is trained epoch by epoch
    # The keys of `train` that mean something to this kind; None stands for all of them.
    train_keys: ClassVar[tuple[str, ...] | None] = None

    @property
    def pretrained(self) -> "Backbone | None":
        """Return the pretrained backbone that the model contains, if it contains one."""
        return None

    @property
    def later_epochs(self) -> int:
        """Return the number of epochs that follow those of `train.epochs`."""
        return 0

    def describe(self) -> dict[str, object]:
        """Return the columns of comparison.csv that tell this structure from others of its kind."""
        return {}


class Cnn(Structure):
    """Blocks of convolution (ReLU), optional batch normalisation, 2x2 max pooling and dropout; then dense layers with dropout.

    Without filters it is a multilayer perceptron on the flattened pixels.
    """

    filters: tuple[Count, ...]
    kernel: Count = 3
    padding: Literal["same", "valid"] = "same"
    pool: tuple[bool, ...] | bool = True  # after each block, or said block by block
    batch_norm: bool = True
    # Keras's default of 0.99 averages over hundreds of steps; small sets have some forty an epoch.
    batch_norm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    block_dropout: tuple[Share, ...] = ()  # after each block; none where empty
    dense: tuple[Count, ...] = (128,)
    activation: Activation = "relu"  # of the dense layers
    dropout: Share = 0.0  # after the dense layers

    kind: ClassVar[str] = "cnn"

    def describe(self) -> dict[str, object]:
        """Return filters, kernel and dropout; a perceptron has no kernel."""
        return {
            "filters": " ".join(map(str, self.filters)),
            "kernel": self.kernel if self.filters else "",
            "dropout": self.dropout,
        }

    @model_validator(mode="after")
    def _said_for_every_block(self) -> "Cnn":
        for name, said in (("pool", self.pool), ("block_dropout", self.block_dropout)):
            if isinstance(said, tuple) and said and len(said) != len(self.filters):
                raise ValueError(
                    f"{name}: expected {len(self.filters)} entries, one for each of filters, received {len(said)}"
                )
        return self


class Backbone(Section):
    """An image model of keras.applications without its top, as it was pretrained."""

    backbone: Annotated[str, AfterValidator(_known_backbone)]
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict
    )  # its own, such as alpha of MobileNet
    weights: str | None = (
        "imagenet"  # or a file of this backbone's weights without top; null starts at random
    )


class Dense(Section):
    """A dense layer of a head: its activation, then batch normalisation, then dropout."""

    units: Count
    activation: Activation = "relu"
    batch_norm: bool = False
    dropout: Share = 0.0


class Head(Section):
    """What stands between a backbone's feature map and the probabilities."""

    pooling: Literal["average", "max", "flatten"] = "average"
    dropout: Share = 0.0  # after the pooling
    dense: tuple[Dense, ...] = ()


class Phase(Section):
    """Training goes on with more of the backbone unfrozen, from the best epoch of the phase before."""

    trainable_from: str | None  # as below
    epochs: Count
    learning_rate: Positive
    views: Count | None = None


class Transfer(Backbone, Structure):
    """A pretrained backbone with a head of its own; batch normalisation of the backbone stays as it was pretrained.

    What lies below the first trained layer is computed once for each image and view, and kept in `.cache/features`.
    """

    trainable_from: str | None = (
        None  # the first layer of the backbone that is trained; null trains the head alone
    )
    views: Count | None = (
        2  # augmented copies of each training image, used in turn; null draws anew each epoch, uncached
    )
    precision: Literal["float32", "bfloat16"] = (
        "float32"  # of views and trained layers; predictions are always float32
    )
    head: Head = Head()
    phases: tuple[Phase, ...] = ()  # further unfreezing, after the head

    kind: ClassVar[str] = "transfer"

    @property
    def pretrained(self) -> Backbone:
        """Return the backbone: its keys are those of this structure."""
        return self

    @property
    def later_epochs(self) -> int:
        """Return the number of epochs of all phases after the first."""
        return sum(phase.epochs for phase in self.phases)

    def describe(self) -> dict[str, object]:
        """Return the backbone and the dropout rates of the head."""
        rates = (self.head.dropout, *(dense.dropout for dense in self.head.dense))
        dropout = " ".join(f"{rate:g}" for rate in rates if rate)
        return {"backbone": self.backbone, "dropout": dropout}


class Classical(Structure):
    """A scikit-learn classifier on the pixels (flattened, 0 to 1), or on the pooled features of a frozen backbone."""

    classifier: Literal["random_forest", "logistic_regression", "linear_svm", "rbf_svm"]
    trees: Count = 300  # of the forest
    regularization: Positive = 1.0  # C of the others: smaller is stronger
    features: Backbone | None = None
    pooling: Literal["average", "max"] = "average"

    kind: ClassVar[str] = "classical"
    in_epochs: ClassVar[bool] = False
    train_keys: ClassVar[tuple[str, ...]] = ("image_size", "channels", "dark_border", "detail")

    @property
    def pretrained(self) -> Backbone | None:
        """Return the backbone that computes the features; None for a model of the pixels."""
        return self.features

    def describe(self) -> dict[str, object]:
        """Return the backbone of the features, if there is one."""
        return {"backbone": self.features.backbone if self.features else ""}


AnyStructure = Cnn | Transfer | Classical

ARCHITECTURES: dict[str, AnyStructure] = {
    "plain_cnn": Cnn(filters=(32, 64, 128), padding="valid", batch_norm=False, dropout=0.5),
    "cnn_a": Cnn(filters=(32, 64, 128), dropout=0.3),
    "cnn_b": Cnn(filters=(16, 32, 64, 128), dropout=0.5),
    "cnn_c": Cnn(filters=(32, 64, 128), kernel=5, dropout=0.4),
    "photo_cnn": Cnn(filters=(16, 32, 64), pool=(True, False, False), batch_norm=False),
    "photo_cnn_dropout": Cnn(
        filters=(16, 32, 64),
        pool=(True, False, False),
        batch_norm=False,
        block_dropout=(0.25, 0, 0.25),
        dropout=0.5,
    ),
    "photo_binary": Cnn(
        filters=(16, 32, 64),
        pool=(True, False, False),
        batch_norm=False,
        block_dropout=(0.25, 0, 0.25),
        dropout=0.5,
    ),
    "binary_cnn": Cnn(filters=(32, 32), padding="valid", batch_norm=False, dropout=0.5),
    "mnist_cnn": Cnn(filters=(32,), padding="valid", batch_norm=False, dense=(64,)),
    "mnist_mlp": Cnn(filters=()),
    "resnet50": Transfer(
        backbone="ResNet50",
        head=Head(
            dense=(Dense(units=256, batch_norm=True, dropout=0.5), Dense(units=128, dropout=0.3))
        ),
    ),
    "vgg16_finetuned": Transfer(
        backbone="VGG16",
        trainable_from="block5_conv1",
        head=Head(pooling="flatten", dropout=0.3, dense=(Dense(units=128, dropout=0.2),)),
    ),
    "inception_v3": Transfer(backbone="InceptionV3"),
    "transfer": Transfer(backbone="MobileNetV2", head=Head(dropout=0.2)),
    "random_forest": Classical(classifier="random_forest"),
    "linear_features": Classical(
        classifier="logistic_regression", features=Backbone(backbone="MobileNetV2")
    ),
    "svm_features": Classical(classifier="rbf_svm", features=Backbone(backbone="MobileNetV2")),
}


class Architecture(Section):
    """One architecture to train: its structure, the question it answers, and how it is trained."""

    structure: AnyStructure
    question: Question = Question()
    train: Train

    @property
    def weights_files(self) -> list[Path]:
        """The file of pretrained weights that params name, if it is there; those of Keras are checked by Keras."""
        pretrained = self.structure.pretrained
        file = Path((pretrained and pretrained.weights) or "").expanduser()
        return [file] if file.is_file() else []


def read_architecture(name: str, path: Path = PARAMS) -> Architecture:
    """Return one architecture of a params file: its keys laid over its row of the table and over `train`. Raises `UserError`."""
    raw = read_file(path)
    sections = raw.get("architectures")
    if not isinstance(sections, dict) or name not in sections:
        known = ", ".join(map(str, sections)) if isinstance(sections, dict) else "none"
        raise UserError(f"{path} has no architecture {name}; known are {known}")
    return _read(path, raw | {"architectures": {name: sections[name]}})[name]


def read_architectures(path: Path = PARAMS) -> dict[str, Architecture]:
    """Return all architectures of a params file. Raises `UserError`."""
    return _read(path, read_file(path))


def lay_over_table(raw: dict[str, Any], problems: list[str]) -> Iterator[tuple[str, Architecture]]:
    """Yield each architecture of a file's content; what is wrong with one is added to `problems`."""
    sections = raw.get("architectures")
    if not isinstance(sections, dict) or not sections:
        problems.append(
            f"architectures: received {sections!r}, expected at least one of {', '.join(ARCHITECTURES)}"
        )
        return
    defaults = raw.get("train") or {}
    if not _is_valid(Train, defaults):
        defaults = {}  # its mistakes are told once, under train
    for name, section in sections.items():
        try:
            architecture = _architecture(name, section or {}, defaults, problems)
        except UserError as error:
            problems.append(f"architectures.{name}: {error}")
        else:
            if architecture is not None:
                yield name, architecture


def _read(path: Path, raw: dict[str, Any]) -> dict[str, Architecture]:
    problems: list[str] = []
    try:
        Train.model_validate(raw.get("train") or {})
    except ValidationError as error:
        problems += [describe_problem(detail, Train, "train") for detail in error.errors()]
    found = dict(lay_over_table(raw, problems))
    refuse(path, problems)
    return found


def _architecture(
    name: str, section: Any, defaults: dict[str, Any], problems: list[str]
) -> Architecture | None:
    """Return the architecture, or None where one of its keys is wrong, which is added to `problems`."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,200}", name):
        raise UserError(
            f"received {name!r}, expected a text of 1 to 200 letters, digits and underscores: it names a folder and a stage"
        )
    if not isinstance(section, dict):
        raise UserError(
            f"received {section!r}, expected a mapping such as {{batch_size: 64}} or {{}}"
        )
    row = _row(section.get("like", name))
    structure, question = (
        {key: section[key] for key in section if key in model.model_fields}
        for model in (type(row), Question)
    )
    train = {
        key: value for key, value in section.items() if key not in {"like", *structure, *question}
    }
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
            problems += [
                describe_problem(detail, model, f"architectures.{name}", known)
                for detail in error.errors()
            ]
    if len(checked) < 3:
        return None
    check_size(checked["structure"], checked["train"].image_size)
    return Architecture(**checked)


def _row(like: object) -> AnyStructure:
    if isinstance(like, str) and like in ARCHITECTURES:
        return ARCHITECTURES[like]
    if isinstance(like, str) and like in BACKBONES:
        return ARCHITECTURES["transfer"].model_copy(update={"backbone": like})
    close = difflib.get_close_matches(str(like), [*ARCHITECTURES, *BACKBONES], n=1)
    raise UserError(
        f"unknown architecture {like!r}; {f'did you mean {close[0]}? ' if close else ''}known are {', '.join(ARCHITECTURES)}, "
        "and every image model of keras.applications by its name, such as EfficientNetB0. "
        "A variant says which of them it changes: cnn_d: {like: cnn_a, dropout: 0.2}"
    )


def check_size(structure: Structure, size: tuple[int, int]) -> None:
    backbone = structure.pretrained
    if backbone is not None and min(size) < BACKBONES[backbone.backbone]:
        least = BACKBONES[backbone.backbone]
        raise UserError(
            f"image_size: received {list(size)}, expected at least {least} pixels a side for {backbone.backbone}"
        )


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
    return {
        key: spelled_out(value) if key == "augmentation" else value for key, value in train.items()
    }
