"""The whole of `params.yaml`, all sections together. `python -m tasks.params` checks the file with it."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from tasks.params import search_space
from tasks.params.architectures import Architecture, lay_over_table
from tasks.params.compare import Compare
from tasks.params.ensembles import Ensemble, find_mistakes
from tasks.params.evaluate import Evaluate
from tasks.params.explain import Explain
from tasks.params.read import PARAMS, describe_problem, read_file, refuse
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
    split: Split = Split()
    weigh: Weigh = Weigh()
    train: Train = Train()
    architectures: dict[str, Architecture]
    ensembles: dict[str, Ensemble] = Field(default_factory=dict)
    tune: Tune | None = None  # what `python -m flows.tune` may try; no stage reads it
    evaluate: Evaluate = Evaluate()
    explain: Explain = Explain()
    compare: Compare = Compare()
    register_: Register = Field(default=Register(), alias="register")
    report: Report = Report()


def load_params(path: Path = PARAMS) -> Params:
    """Read and check a params file. Raises `UserError` naming every wrong key and what is allowed there."""
    raw = read_file(path)
    problems: list[str] = []
    raw["architectures"] = dict(lay_over_table(raw, problems))
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        refuse(path, [describe_problem(detail, Params) for detail in error.errors()] + problems)
    refuse(path, problems)
    refuse(path, [*_unknown_question(params), *_wrong_members(params), *_space_mistakes(params)])
    return params


def _unknown_question(params: Params) -> list[str]:
    asked = list(dict.fromkeys(section.question.name for section in params.architectures.values()))
    received = params.compare.question
    return (
        []
        if received in (None, *asked)
        else [f"compare.question: received {received!r}, expected {' or '.join(map(repr, asked))}"]
    )


def _wrong_members(params: Params) -> list[str]:
    return find_mistakes(
        params.ensembles, {name: section.question for name, section in params.architectures.items()}
    )


def _space_mistakes(params: Params) -> Iterator[str]:
    """Yield what `tune.space` names or allows that no architecture takes."""
    for name, space in (params.tune.space if params.tune else {}).items():
        if name not in params.architectures:
            close = difflib.get_close_matches(name, params.architectures, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            yield f"tune.space.{name}: unknown architecture; {hint}known here are {', '.join(params.architectures)}"
        else:
            found = search_space.find_mistakes(space, params.architectures[name])
            yield from (f"tune.space.{name}.{problem}" for problem in found)
