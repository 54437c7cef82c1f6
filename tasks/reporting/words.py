"""Name the values of tables and parameters for a reader.

Words marked with `N_` appear in the tables as they are. The templates translate them with `word`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from tasks.reporting.language import N_, _

_class_names: ContextVar[Mapping[str, str]] = ContextVar(
    "class_names", default=MappingProxyType({})
)

VALUES = (
    *(N_("training"), N_("validation"), N_("test"), N_("withheld")),
    *(N_("cnn"), N_("transfer"), N_("classical"), N_("ensemble")),
    *(N_("none"), N_("some"), N_("strong"), N_("error"), N_("warn")),
    *(N_("exact"), N_("near"), N_("mirrored"), N_("width"), N_("height")),
    *(N_("epoch"), N_("phase"), N_("accuracy"), N_("loss"), N_("learning rate")),
    *(N_("external"), N_("epoch kept: {epoch}"), N_("all classes")),
    *(N_("val accuracy"), N_("val loss"), N_("val macro f1")),
    *(N_("empty"), N_("too many bytes"), N_("not an image"), N_("too many pixels")),
    *(N_("truncated"), N_("corrupt"), N_("unsupported mode"), N_("unsupported compression")),
    *(N_("missing package"), N_("outside class folder"), N_("unreadable")),
)


@contextmanager
def show_class_names(names: Mapping[str, str]) -> Iterator[None]:
    """Show these names of classes in this block, {class: name}. Others keep their own."""
    token = _class_names.set(names)
    try:
        yield
    finally:
        _class_names.reset(token)


def name_class(label: str) -> str:
    """Return the name of a class for a reader."""
    return _class_names.get().get(label, label)


def name_score(column: str) -> str:
    """Return the name of a score that ranks the models."""
    return {
        "val_macro_f1": _("macro F1"),
        "val_accuracy": _("accuracy"),
        "val_balanced_accuracy": _("balanced accuracy"),
    }[column]


def name_parts() -> dict[str, str]:
    """Return the name of each part by the prefix of its metrics."""
    return {
        "val": _("validation"),
        "test": _("test"),
        "test_without_copies": _("test without copies"),
    }


def name_values() -> dict[str, dict[str, str]]:
    """Return the names that the templates look up, by the name of each table."""
    return {
        "verdicts": {
            "promoted": _("promoted"),
            "refused": _("refused"),
            "undecided": _("left to a person"),
            "stands": _("nothing changes"),
        },
        "kinds": {
            "cnn": _("CNN trained from scratch"),
            "transfer": _("Transfer learning"),
            "classical": _("scikit-learn model"),
            "ensemble": _("Ensemble"),
        },
        "overfitting": {
            "none": _("No overfitting"),
            "some": _("Some overfitting"),
            "strong": _("Strong overfitting"),
        },
        "checks": {
            "macro_f1": _("Macro F1"),
            "worst_recall": _("Recall of the worst class"),
            "calibration_error": _("Calibration error"),
            "difference": _("Difference from the champion"),
            "mcnemar": _("McNemar's test against the champion"),
            "recalls": _("Recall of each class against the champion"),
        },
        "expectations": {
            "usable_share": _("Share of usable files"),
            "classes": _("Number of classes"),
            "images_per_class": _("Images of each class"),
            "imbalance": _("Imbalance of the classes"),
            "side": _("Size of the images"),
            "contrast": _("Contrast"),
            "levels": _("Number of grey values"),
            "distinct_share": _("Share of distinct images"),
            "format_matches_name": _("File names match their formats"),
        },
    }
