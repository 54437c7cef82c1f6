"""The question a model answers: which of its classes each class folder belongs to."""

from collections.abc import Iterable

from pydantic import field_validator, model_validator

from tasks.errors import UserError, suggest
from tasks.params.section import Section

ALL_CLASSES = "all classes"


class Question(Section):
    """The question a model answers. Without keys every class folder is a class."""

    positive: str | None = None
    """Class to distinguish from the rest; null predicts all classes, or the classes of `labels`."""
    labels: dict[str, tuple[str, ...]] | None = None
    """Classes that group class folders, {class: [folder, …]}; null groups no folders."""

    @field_validator("labels")
    @classmethod
    def _check_groups(
        cls, labels: dict[str, tuple[str, ...]] | None
    ) -> dict[str, tuple[str, ...]] | None:
        if labels is not None and len(labels) < 2:
            raise ValueError("expected at least two classes")
        empty = [label for label, group in (labels or {}).items() if not group]
        if empty:
            raise ValueError(f"expected at least one folder for {', '.join(empty)}")
        return labels

    @model_validator(mode="after")
    def _check_one_question(self) -> "Question":
        if self.positive is not None and self.labels is not None:
            raise ValueError("give positive or labels, not both")
        return self

    @property
    def name(self) -> str:
        """The name of the question in tables."""
        if self.positive is not None:
            return f"{self.positive} or not"
        return ALL_CLASSES if self.labels is None else ", ".join(sorted(self.labels))

    def find_problems(self, folders: Iterable[str]) -> list[str]:
        """Return why the question does not fit these class folders, one line for each reason.

        Each line begins with `positive: ` or `labels: `.
        """
        folders = sorted(set(folders))
        if self.positive is not None:
            return [f"positive: {problem}" for problem in self._check_positive(folders)]
        if self.labels is not None:
            return [f"labels: {problem}" for problem in _check_labels(self.labels, folders)]
        return []

    def map_folders(self, folders: Iterable[str]) -> dict[str, str]:
        """Return {class folder: class}. Raises `UserError` with all mistakes of `find_problems`."""
        folders = sorted(set(folders))
        problems = self.find_problems(folders)
        if problems:
            raise UserError("; ".join(problems))
        if self.positive is not None:
            return {folder: folder if folder == self.positive else self._rest for folder in folders}
        if self.labels is not None:
            return {folder: label for label, group in self.labels.items() for folder in group}
        return {folder: folder for folder in folders}

    def classes(self, folders: Iterable[str]) -> list[str]:
        """Return the classes in the order of a model's outputs: sorted, or [rest, positive]."""
        answers = self.map_folders(folders)
        if self.positive is not None:
            return [self._rest, self.positive]
        return sorted(set(answers.values()))

    def coarsen(self, coarser: "Question", folders: Iterable[str]) -> dict[str, str] | None:
        """Return {class: class of `coarser`}.

        Returns None if the folders of one class belong to two classes of `coarser`.
        """
        mine, theirs = self.map_folders(folders), coarser.map_folders(folders)
        pairs = {(mine[folder], theirs[folder]) for folder in mine}
        return dict(sorted(pairs)) if len(pairs) == len(set(mine.values())) else None

    @property
    def _rest(self) -> str:
        return f"not_{self.positive}"

    def _check_positive(self, folders: list[str]) -> list[str]:
        if self.positive not in folders:
            return [_describe_unknown(self.positive, folders)]
        if self._rest in folders:
            return [
                f"all other folders form the class {self._rest!r}, "
                "and a folder has that name already: rename it"
            ]
        return []


def _check_labels(labels: dict[str, tuple[str, ...]], folders: list[str]) -> list[str]:
    listed = [folder for group in labels.values() for folder in group]
    twice = sorted({folder for folder in listed if listed.count(folder) > 1})
    unknown = sorted(set(listed) - set(folders))
    missing = [folder for folder in folders if folder not in listed]
    return [
        *(f"the folder {folder!r} is listed twice; list it under one class" for folder in twice),
        *(_describe_unknown(folder, folders) for folder in unknown),
        *(
            f"the folder {folder!r} belongs to no class; add it to one of {', '.join(labels)}"
            for folder in missing
        ),
    ]


def _describe_unknown(received: str | None, known: list[str]) -> str:
    hint = suggest(received, known)
    return f"received {received!r}; {hint}expected one of {', '.join(known)}"
