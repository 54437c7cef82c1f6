"""The question a model answers: which class folders count as which of its classes."""

import difflib
from collections.abc import Iterable

from pydantic import field_validator, model_validator

from tasks.errors import UserError
from tasks.params.section import Section

ALL_CLASSES = "all classes"


class Question(Section):
    """All class folders, one of them against the rest (`positive`), or groups of them (`labels`: class to folders)."""

    positive: str | None = None
    labels: dict[str, tuple[str, ...]] | None = None

    @field_validator("labels")
    @classmethod
    def _two_classes_with_folders(
        cls, labels: dict[str, tuple[str, ...]] | None
    ) -> dict[str, tuple[str, ...]] | None:
        if labels is not None and len(labels) < 2:
            raise ValueError("expected at least two classes")
        empty = [label for label, group in (labels or {}).items() if not group]
        if empty:
            raise ValueError(f"expected at least one folder for {', '.join(empty)}")
        return labels

    @model_validator(mode="after")
    def _one_question(self) -> "Question":
        if self.positive is not None and self.labels is not None:
            raise ValueError("give positive or labels, not both")
        return self

    @property
    def name(self) -> str:
        """How tables name it."""
        if self.positive is not None:
            return f"{self.positive} or not"
        return ALL_CLASSES if self.labels is None else ", ".join(sorted(self.labels))

    def problems(self, folders: Iterable[str]) -> list[str]:
        """Return why it cannot be asked of these class folders, each line beginning with `positive: ` or `labels: `."""
        folders = sorted(set(folders))
        if self.positive is not None:
            return [f"positive: {problem}" for problem in self._problems_of_positive(folders)]
        if self.labels is not None:
            return [f"labels: {problem}" for problem in self._problems_of_labels(folders)]
        return []

    def answers(self, folders: Iterable[str]) -> dict[str, str]:
        """Return {class folder: class}. Raises `UserError` with all `problems`."""
        folders = sorted(set(folders))
        problems = self.problems(folders)
        if problems:
            raise UserError("; ".join(problems))
        if self.positive is not None:
            return {folder: folder if folder == self.positive else self._rest for folder in folders}
        if self.labels is not None:
            return {folder: label for label, group in self.labels.items() for folder in group}
        return {folder: folder for folder in folders}

    def classes(self, folders: Iterable[str]) -> list[str]:
        """Return the classes in the order of a model's outputs; of `positive` the rest comes first."""
        answers = self.answers(folders)
        return (
            [self._rest, self.positive]
            if self.positive is not None
            else sorted(set(answers.values()))
        )

    def coarsen(self, coarser: "Question", folders: Iterable[str]) -> dict[str, str] | None:
        """Return {class: class of `coarser`}; None where the folders of one class lie in two of them."""
        mine, theirs = self.answers(folders), coarser.answers(folders)
        pairs = {(mine[folder], theirs[folder]) for folder in mine}
        return dict(sorted(pairs)) if len(pairs) == len(set(mine.values())) else None

    @property
    def _rest(self) -> str:
        return f"not_{self.positive}"

    def _problems_of_positive(self, folders: list[str]) -> list[str]:
        if self.positive not in folders:
            return [
                f"received {self.positive!r}, expected one of {', '.join(folders)}{_hint(self.positive, folders)}"
            ]
        if self._rest in folders:
            return [
                f"all other folders count as {self._rest!r}, and a folder has that name already: rename it"
            ]
        return []

    def _problems_of_labels(self, folders: list[str]) -> list[str]:
        listed = [folder for group in self.labels.values() for folder in group]
        twice = sorted({folder for folder in listed if listed.count(folder) > 1})
        unknown = sorted(set(listed) - set(folders))
        missing = [folder for folder in folders if folder not in listed]
        known = ", ".join(folders)
        return [
            *(f"the folder {folder!r} is given twice; it counts as one class" for folder in twice),
            *(
                f"received {folder!r}, expected one of {known}{_hint(folder, folders)}"
                for folder in unknown
            ),
            *(
                f"the folder {folder!r} counts as no class; add it to one of {', '.join(self.labels)}"
                for folder in missing
            ),
        ]


def _hint(received: str, known: list[str]) -> str:
    close = difflib.get_close_matches(received, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
