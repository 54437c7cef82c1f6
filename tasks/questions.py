"""The question a model answers: which class folders count as which of its classes."""

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, model_validator


class Question(BaseModel):
    """All class folders, one of them against the rest (`positive`), or groups of them (`labels`: class to folders)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    positive: str | None = None
    labels: dict[str, tuple[str, ...]] | None = None

    @model_validator(mode="after")
    def _one_question(self) -> "Question":
        if self.positive is not None and self.labels is not None:
            raise ValueError("give positive or labels, not both")
        if self.labels is not None and len(self.labels) < 2:
            raise ValueError("labels: expected at least two classes")
        return self

    @property
    def name(self) -> str:
        """How tables name it."""
        if self.positive is not None:
            return f"{self.positive} or not"
        return "all classes" if self.labels is None else ", ".join(sorted(self.labels))

    def answers(self, folders: Iterable[str]) -> dict[str, str]:
        """Return {class folder: class}. Raises `ValueError` naming what is missing or given twice."""
        folders = sorted(set(folders))
        if self.positive is not None:
            return self._one_against_the_rest(folders)
        if self.labels is not None:
            return self._groups(folders)
        return {folder: folder for folder in folders}

    def classes(self, folders: Iterable[str]) -> list[str]:
        """Return the classes in the order of a model's outputs; of `positive` the rest comes first."""
        answers = self.answers(folders)
        return [f"not_{self.positive}", self.positive] if self.positive is not None else sorted(set(answers.values()))

    def _one_against_the_rest(self, folders: list[str]) -> dict[str, str]:
        rest = f"not_{self.positive}"
        if self.positive not in folders:
            raise ValueError(
                f"positive: received {self.positive!r}, expected one of {', '.join(folders)}{_hint(self.positive, folders)}"
            )
        if rest in folders:
            raise ValueError(f"positive: all other folders count as {rest!r}, and a folder has that name already: rename it")
        return {folder: folder if folder == self.positive else rest for folder in folders}

    def _groups(self, folders: list[str]) -> dict[str, str]:
        listed = [folder for group in self.labels.values() for folder in group]
        twice = sorted({folder for folder in listed if listed.count(folder) > 1})
        missing = [folder for folder in folders if folder not in listed]
        unknown = sorted(set(listed) - set(folders))
        if twice:
            raise ValueError(f"labels: {', '.join(twice)} given twice; a folder counts as one class")
        if unknown:
            raise ValueError(f"labels: no folder named {', '.join(unknown)}; the folders are {', '.join(folders)}")
        if missing:
            raise ValueError(
                f"labels: the folder {', '.join(missing)} counts as no class; add it to one of {', '.join(self.labels)}"
            )
        return {folder: label for label, group in self.labels.items() for folder in group}


def _hint(received: str, known: list[str]) -> str:
    close = difflib.get_close_matches(received, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
