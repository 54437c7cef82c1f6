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

LOCALE = Path(__file__).parent / "locale"
ENGLISH = "en"

N_ = str  # marks a text that is translated later

_current: ContextVar[NullTranslations | None] = ContextVar("language", default=None)


@contextmanager
def speak(language: str) -> Iterator[None]:
    """Translate all texts in this block into the language."""
    token = _current.set(load_language(language))
    try:
        yield
    finally:
        _current.reset(token)


def _(text: str) -> str:
    """Return the text in the current language."""
    return (_current.get() or load_language(ENGLISH)).gettext(text)


def ngettext(singular: str, plural: str, number: float) -> str:
    """Return the form of the text for this number, in the current language."""
    return (_current.get() or load_language(ENGLISH)).ngettext(singular, plural, int(number))


@cache
def load_language(language: str, folder: Path = LOCALE) -> NullTranslations:
    """Return the translations of a language. English has none: its texts stay as they are."""
    if language == ENGLISH:
        return NullTranslations()
    with (folder / f"{language}.po").open("rb") as file:
        catalog = read_po(file, locale=language)
    with BytesIO() as compiled:
        write_mo(compiled, catalog)
        compiled.seek(0)
        return GNUTranslations(compiled)


def list_languages(folder: Path = LOCALE) -> list[str]:
    """Return English and all languages that have a file."""
    return [ENGLISH, *sorted(file.stem for file in folder.glob("*.po"))]
