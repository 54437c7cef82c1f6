"""The whole of `params.yaml`: all sections, and what must fit between them."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from tasks.errors import suggest
from tasks.params import ensembles, search_space
from tasks.params.architectures import Architecture
from tasks.params.compare import Compare
from tasks.params.ensembles import Ensemble
from tasks.params.evaluate import Evaluate
from tasks.params.explain import Explain
from tasks.params.read import PARAMS, describe_problem, read_file, refuse
from tasks.params.read_architectures import lay_over_table
from tasks.params.register import Register
from tasks.params.report import Report
from tasks.params.section import Section
from tasks.params.split import Split
from tasks.params.train import Train
from tasks.params.tune import Tune
from tasks.params.validate import Validate
from tasks.params.weigh import Weigh


class Params(Section):
    """The whole of `params.yaml`."""

    validate_: Validate = Field(default=Validate(), alias="validate")
    """Folder layout, largest files and images, and expectations."""
    split: Split = Split()
    """How images are divided into training, validation and test."""
    weigh: Weigh = Weigh()
    """The weight of each class in the loss."""
    train: Train = Train()
    """Defaults for all architectures."""
    architectures: dict[str, Architecture]
    """The architectures to train, by name; at least one."""
    ensembles: dict[str, Ensemble] = Field(default_factory=dict)
    """Architectures that predict together, by the name of the ensemble; {} means no ensembles."""
    tune: Tune | None = None
    """Objective, budget and space of `python -m flows.tune`; null if nothing is searched."""
    evaluate: Evaluate = Evaluate()
    """How each model's thresholds and calibration error are computed."""
    explain: Explain = Explain()
    """How many images get a heat map."""
    compare: Compare = Compare()
    """How models are ranked."""
    register_: Register = Field(default=Register(), alias="register")
    """The registered model, and when a version becomes its champion."""
    report: Report = Report()
    """Texts and pictures of the report."""


def load_params(path: Path = PARAMS) -> Params:
    """Read and check a params file.

    Raises `UserError` that names every wrong key and what is allowed there.
    """
    raw = read_file(path)
    problems: list[str] = []
    raw["architectures"] = dict(lay_over_table(raw, problems))
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        refuse(path, [describe_problem(detail, Params) for detail in error.errors()] + problems)
    refuse(path, problems)
    refuse(path, [*_check_question(params), *_check_ensembles(params), *_check_space(params)])
    return params


def _check_question(params: Params) -> list[str]:
    known = list(dict.fromkeys(section.question.name for section in params.architectures.values()))
    received = params.compare.question
    if received in (None, *known):
        return []
    expected = " or ".join(map(repr, known))
    return [f"compare.question: received {received!r}, expected {expected}"]


def _check_ensembles(params: Params) -> list[str]:
    questions = {name: section.question for name, section in params.architectures.items()}
    return ensembles.find_mistakes(params.ensembles, questions)


def _check_space(params: Params) -> Iterator[str]:
    """Yield each mistake of `tune.space`."""
    known = params.architectures
    for name, space in (params.tune.space if params.tune else {}).items():
        if name in known:
            found = search_space.find_mistakes(space, known[name])
            yield from (f"tune.space.{name}.{problem}" for problem in found)
        else:
            yield (
                f"tune.space.{name}: unknown architecture; "
                f"{suggest(name, known)}known here are {', '.join(known)}"
            )
