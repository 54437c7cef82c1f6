"""The section `architectures` of `params.yaml`, and the table of architectures that it changes.

Plain data: `layers.py`, `backbones.py` and `classical.py` in `tasks/modeling/` build the models.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from tasks.errors import UserError, suggest
from tasks.params.augmentation import expand_augmentation
from tasks.params.questions import Question
from tasks.params.read import PARAMS, describe_problem, read_file, refuse
from tasks.params.section import Count, Positive, Section, Share
from tasks.params.train import Train

Activation = Literal["relu", "tanh"]

# Image models of keras.applications -> the smallest side in pixels that each takes without its top.
BACKBONES: dict[str, int] = {
    "ConvNeXtBase": 32, "ConvNeXtLarge": 32, "ConvNeXtSmall": 32, "ConvNeXtTiny": 32,
    "ConvNeXtXLarge": 32,
    "DenseNet121": 32, "DenseNet169": 32, "DenseNet201": 32,
    "EfficientNetB0": 32, "EfficientNetB1": 32, "EfficientNetB2": 32, "EfficientNetB3": 32,
    "EfficientNetB4": 32, "EfficientNetB5": 32, "EfficientNetB6": 32, "EfficientNetB7": 32,
    "EfficientNetV2B0": 32, "EfficientNetV2B1": 32, "EfficientNetV2B2": 32, "EfficientNetV2B3": 32,
    "EfficientNetV2L": 32, "EfficientNetV2M": 32, "EfficientNetV2S": 32,
    "InceptionResNetV2": 75, "InceptionV3": 75,
    "MobileNet": 32, "MobileNetV2": 32, "MobileNetV3Large": 32, "MobileNetV3Small": 32,
    "NASNetLarge": 32, "NASNetMobile": 32,
    "ResNet50": 32, "ResNet50V2": 32, "ResNet101": 32, "ResNet101V2": 32, "ResNet152": 32,
    "ResNet152V2": 32,
    "VGG16": 32, "VGG19": 32, "Xception": 71,
}  # fmt: skip


def _check_backbone(name: str) -> str:
    if name not in BACKBONES:
        raise ValueError(
            f"expected an image model of keras.applications; {suggest(name, BACKBONES)}"
            f"known are {', '.join(BACKBONES)}"
        )
    return name


class Structure(Section):
    """The properties that all kinds of models share. Needs no TensorFlow.

    A new kind is a subclass here, a name in `AnyStructure`, and a module in `tasks/modeling` with
    its row in `kinds.KINDS`.
    """

    kind: ClassVar[str]
    in_epochs: ClassVar[bool] = True  # whether it is trained epoch by epoch
    # The keys of `train` that apply to this kind; None means all of them.
    train_keys: ClassVar[tuple[str, ...] | None] = None

    @property
    def pretrained(self) -> "Backbone | None":
        """Return the pretrained backbone of the model, if it has one."""
        return None

    @property
    def later_epochs(self) -> int:
        """Return the number of epochs after those of `train.epochs`."""
        return 0

    def describe(self) -> dict[str, object]:
        """Return the cells of comparison.csv that describe this structure."""
        return {}


class Cnn(Structure):
    """A convolutional network: blocks of layers, then dense layers.

    A block has a convolution with ReLU, batch normalisation, 2x2 max pooling and dropout.
    Without filters the network is a multilayer perceptron on the flattened pixels.
    """

    filters: tuple[Count, ...]
    """Filters of each convolution, block by block; an empty list makes a multilayer perceptron."""
    kernel: Count = 3
    """Height and width of each convolution kernel in pixels."""
    padding: Literal["same", "valid"] = "same"
    """Padding of the convolutions: `same` keeps the size, `valid` adds no border."""
    pool: tuple[bool, ...] | bool = True
    """Whether max pooling ends a block: a value for all blocks, or a list of values."""
    batch_norm: bool = True
    """Whether batch normalisation follows each convolution."""
    # Keras's default of 0.99 averages over hundreds of steps; small sets have some forty an epoch.
    batch_norm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Momentum of batch normalisation's moving averages; 0.9 averages over about ten steps."""
    block_dropout: tuple[Share, ...] = ()
    """Dropout rate at the end of each block; an empty list means no dropout there."""
    dense: tuple[Count, ...] = (128,)
    """Units of each dense layer."""
    activation: Activation = "relu"
    """Activation of the dense layers."""
    dropout: Share = 0.0
    """Dropout rate after each dense layer; 0 means no dropout."""

    kind: ClassVar[str] = "cnn"

    def describe(self) -> dict[str, object]:
        """Return filters, kernel and dropout; a perceptron has no kernel."""
        return {
            "filters": " ".join(map(str, self.filters)),
            "kernel": self.kernel if self.filters else "",
            "dropout": self.dropout,
        }

    @model_validator(mode="after")
    def _check_one_for_each_block(self) -> "Cnn":
        for name, given in (("pool", self.pool), ("block_dropout", self.block_dropout)):
            if isinstance(given, tuple) and given and len(given) != len(self.filters):
                raise ValueError(
                    f"{name}: expected {len(self.filters)} entries, as many as filters has, "
                    f"received {len(given)}"
                )
        return self


class Backbone(Section):
    """A pretrained image model of keras.applications without its top."""

    backbone: Annotated[str, AfterValidator(_check_backbone)]
    """Name in keras.applications, such as MobileNetV2."""
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further arguments of the backbone, such as `alpha` of MobileNet."""
    weights: str | None = "imagenet"
    """`imagenet`, or a file with this backbone's weights without top; null starts at random."""


class Dense(Section):
    """A dense layer of a head: its activation, then batch normalisation, then dropout."""

    units: Count
    """Number of units."""
    activation: Activation = "relu"
    """Activation function."""
    batch_norm: bool = False
    """Whether batch normalisation follows."""
    dropout: Share = 0.0
    """Dropout rate after the layer; 0 means no dropout."""


class Head(Section):
    """The layers between a backbone's feature map and the probabilities."""

    pooling: Literal["average", "max", "flatten"] = "average"
    """How the feature map becomes a vector: global average, global maximum, or flattened."""
    dropout: Share = 0.0
    """Dropout rate after the pooling; 0 means no dropout."""
    dense: tuple[Dense, ...] = ()
    """Dense layers after the pooling."""


class Phase(Section):
    """A further phase of training with more of the backbone unfrozen.

    It starts from the best epoch of the phase before.
    """

    trainable_from: str | None
    """First layer of the backbone that is trained; null trains only the head."""
    epochs: Count
    """Maximum number of epochs of this phase."""
    learning_rate: Positive
    """Initial learning rate of this phase."""
    views: Count | None = None
    """Cached augmented copies per training image; null draws new copies each epoch, uncached."""


class Transfer(Backbone, Structure):
    """A pretrained backbone with a new head. The backbone's batch normalisation stays frozen.

    The output of the layers below the first trained layer is computed once for each image, and for
    each cached augmented copy. It is kept in `.cache/features`.
    """

    trainable_from: str | None = None
    """First layer of the backbone that is trained; null trains only the head."""
    views: Count | None = 2
    """Cached augmented copies per training image; null draws new copies each epoch, uncached."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of cached copies and trained layers; predictions are always float32."""
    head: Head = Head()
    """The layers between the backbone's feature map and the probabilities."""
    phases: tuple[Phase, ...] = ()
    """Further phases of training with more of the backbone unfrozen."""

    kind: ClassVar[str] = "transfer"

    @property
    def pretrained(self) -> Backbone:
        """Return the backbone, whose keys are part of this structure."""
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
    """A scikit-learn classifier.

    Its inputs are the flattened pixels from 0 to 1, or the pooled features of a frozen backbone.
    """

    classifier: Literal["random_forest", "logistic_regression", "linear_svm", "rbf_svm"]
    """Kind of classifier."""
    trees: Count = 300
    """Number of trees of a random forest."""
    regularization: Positive = 1.0
    """Parameter C of the other classifiers; a smaller value regularizes more."""
    features: Backbone | None = None
    """The frozen backbone that computes the inputs; null means that the pixels are the inputs."""
    pooling: Literal["average", "max"] = "average"
    """How the backbone's feature map becomes a vector."""

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
    """One architecture to train."""

    structure: AnyStructure
    """Layers of a network, or kind of a classifier."""
    question: Question = Question()
    """The question that the model answers."""
    train: Train
    """How the model is trained."""

    @property
    def weights_files(self) -> list[Path]:
        """The file of pretrained weights named in params, if it exists. Keras checks its own."""
        pretrained = self.structure.pretrained
        file = Path((pretrained and pretrained.weights) or "").expanduser()
        return [file] if file.is_file() else []


def read_architecture(name: str, path: Path = PARAMS) -> Architecture:
    """Return one architecture of a params file.

    Its own keys override its row of the table and the section `train`. Raises `UserError`.
    """
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
    """Yield each architecture of a file's content. The mistakes of the others go to `problems`."""
    sections = raw.get("architectures")
    if not isinstance(sections, dict) or not sections:
        problems.append(
            f"architectures: received {sections!r}, "
            f"expected at least one of {', '.join(ARCHITECTURES)}"
        )
        return
    defaults = raw.get("train") or {}
    if not _is_valid(Train, defaults):
        defaults = {}  # its mistakes are reported once, under train
    for name, section in sections.items():
        try:
            architecture = _read_one(name, section or {}, defaults, problems)
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


def _read_one(
    name: object, section: Any, defaults: dict[str, Any], problems: list[str]
) -> Architecture | None:
    """Return the architecture, or None after adding its mistakes to `problems`."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,200}", name):
        raise UserError(
            f"received {name!r}, expected a text of 1 to 200 letters, digits and underscores: "
            "it names a folder and a stage"
        )
    if not isinstance(section, dict):
        raise UserError(
            f"received {section!r}, expected a mapping such as {{batch_size: 64}} or {{}}"
        )
    checked: dict[str, Any] = {}
    parts = _divide({"like": name} | section, defaults)
    known = ["like", *(key for model, _ in parts.values() for key in model.model_fields)]
    for part, (model, values) in parts.items():
        try:
            checked[part] = model.model_validate(values)
        except ValidationError as error:
            problems += [
                describe_problem(detail, model, f"architectures.{name}", known)
                for detail in error.errors()
            ]
    if len(checked) < len(parts):
        return None
    check_size(checked["structure"], checked["train"].image_size)
    return Architecture(**checked)


def _divide(
    section: dict[str, Any], defaults: dict[str, Any]
) -> dict[str, tuple[type[Section], dict[str, Any]]]:
    """Return the schema and the values of each part of an architecture.

    Unknown keys go to the part `train`, whose schema refuses them.
    """
    row = _find_row(section["like"])
    structure, question = (
        {key: section[key] for key in section if key in model.model_fields}
        for model in (type(row), Question)
    )
    others = {"like", *structure, *question}
    train = {key: value for key, value in section.items() if key not in others}
    return {
        "structure": (type(row), _merge(row.model_dump(), structure)),
        "question": (Question, question),
        "train": (Train, _merge(_expand_names(defaults), _expand_names(train))),
    }


def _find_row(like: object) -> AnyStructure:
    if isinstance(like, str) and like in ARCHITECTURES:
        return ARCHITECTURES[like]
    if isinstance(like, str) and like in BACKBONES:
        return ARCHITECTURES["transfer"].model_copy(update={"backbone": like})
    raise UserError(
        f"unknown architecture {like!r}; {suggest(like, [*ARCHITECTURES, *BACKBONES])}"
        f"known are {', '.join(ARCHITECTURES)}, "
        "and every image model of keras.applications by its name, such as EfficientNetB0. "
        "A variant says which of them it changes: cnn_d: {like: cnn_a, dropout: 0.2}"
    )


def check_size(structure: Structure, size: tuple[int, int]) -> None:
    """Raise `UserError` if images are too small for the backbone."""
    backbone = structure.pretrained
    if backbone is not None and min(size) < BACKBONES[backbone.backbone]:
        least = BACKBONES[backbone.backbone]
        raise UserError(
            f"image_size: received {list(size)}, "
            f"expected at least {least} pixels a side for {backbone.backbone}"
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


def _expand_names(train: dict[str, Any]) -> dict[str, Any]:
    """Replace the name of an augmentation by its keys.

    So a name given for one architecture replaces the default instead of joining it.
    """
    return {
        key: expand_augmentation(value) if key == "augmentation" else value
        for key, value in train.items()
    }
