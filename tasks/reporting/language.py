"""Translate the texts of the report and of the web page.

Texts are written in English, in `_("…")`. Each other language is one file, `locale/<language>.po`,
which is read at run time. A text without a translation stays English.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

ENGLISH = "en"
FOLDERS = [Path(__file__).parent / "locale"]  # another package may append its own

N_ = str  # marks a text that is translated later

_current: ContextVar[str] = ContextVar("language", default=ENGLISH)


@contextmanager
def speak(language: str) -> Iterator[None]:
    """Translate all texts in this block into the language."""
    token = _current.set(language)
    try:
        yield
    finally:
        _current.reset(token)


def _(text: str) -> str:
    """Return the text in the current language."""
    return load_language(_current.get()).gettext(text)


def ngettext(singular: str, plural: str, number: float) -> str:
    """Return the form of the text for this number, in the current language."""
    return load_language(_current.get()).ngettext(singular, plural, int(number))


def load_language(language: str) -> NullTranslations:
    """Return the translations of a language. English texts stay as they are."""
    return _load(language, tuple(FOLDERS))


def list_languages() -> list[str]:
    """Return English and all languages that have a file."""
    return [ENGLISH, *sorted({file.stem for folder in FOLDERS for file in folder.glob("*.po")})]


@cache
def _load(language: str, folders: tuple[Path, ...]) -> NullTranslations:
    found = NullTranslations()
    for file in [folder / f"{language}.po" for folder in folders]:
        if language != ENGLISH and file.exists():
            with file.open("rb") as source, BytesIO() as compiled:
                write_mo(compiled, read_po(source, locale=language))
                compiled.seek(0)
                found.add_fallback(GNUTranslations(compiled))
    return found
