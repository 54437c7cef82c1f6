"""Every text of the report and of the page has a French translation, with the same values."""

import re
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from pydantic import ValidationError

from tasks.imaging.picture import REASONS
from tasks.params.report import Report
from tasks.reporting import figures
from tasks.reporting.language import FOLDERS, _, list_languages, ngettext, speak
from tasks.reporting.words import name_class, show_class_names
from tests.support import ROOT

TEMPLATES = [("**/templates/**.html", "jinja2"), ("**/templates/**.md", "jinja2")]
METHODS = [("reporting/**.py", "python"), ("assessment/**.py", "python"), *TEMPLATES]
PAGE = [("**.py", "python"), *TEMPLATES]
LOCALES = [ROOT / "tasks/reporting/locale", ROOT / "serving/locale"]
VALUES = re.compile(r"%\(\w+\)s|\{\w+\}|%%|</?\w+>")


def read_french() -> dict[str, list[str]]:
    """Return the translations of each text, one for each form of a plural."""
    found = {}
    for folder in LOCALES:
        with (folder / "fr.po").open("rb") as file:
            for message in read_po(file):
                forms = message.string if isinstance(message.id, tuple) else [message.string]
                key = message.id[0] if isinstance(message.id, tuple) else message.id
                found[key] = list(forms)
    return found


def extract_texts() -> set[str]:
    """Return all texts in the code and the templates; of a plural, its first form."""
    options = {"**.html": {"silent": "false"}, "**.md": {"silent": "false"}}
    found = [
        *extract_from_dir(ROOT / "tasks", METHODS, options_map=options),
        *extract_from_dir(ROOT / "serving", PAGE, options_map=options),
    ]
    texts = {text if isinstance(text, str) else text[0] for _file, _line, text, *_rest in found}
    return texts | set(REASONS.values())


def test_every_text_is_in_french_and_no_translation_is_unused() -> None:
    french = {text for text in read_french() if text}
    texts = extract_texts()
    assert sorted(texts - french) == [] and sorted(french - texts) == [] and len(texts) > 200


def test_a_translation_has_the_values_of_its_text() -> None:
    for text, forms in read_french().items():
        for form in forms if text else []:
            assert form and sorted(VALUES.findall(form)) == sorted(VALUES.findall(text)), text


def test_a_language_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "de.po").write_text(
        'msgid ""\nmsgstr "Language: de\\n"\n\nmsgid "test"\nmsgstr "Test"\n'
    )
    monkeypatch.setattr("tasks.reporting.language.FOLDERS", [*FOLDERS, tmp_path])
    assert list_languages() == ["en", "de", "fr"]
    with speak("de"):
        assert (_("test"), _("validation")) == ("Test", "validation")
        with speak("fr"):
            assert _("validation") == "validation" and _("all") == "toutes"
    assert _("all") == "all"


def test_french_counts_zero_and_one_alike() -> None:
    one = "These test images were used for %(looks)s evaluation so far."
    many = "These test images were used for %(looks)s evaluations so far."
    with speak("fr"):
        forms = [ngettext(one, many, number) for number in (0, 1, 2)]
    assert forms[0] == forms[1] != forms[2]


def test_an_unknown_language_is_refused_with_the_known_ones() -> None:
    assert Report(language="fr").language == "fr"
    with pytest.raises(ValidationError, match="expected one of en, fr"):
        Report(language="fr_CA")


def test_a_class_has_the_name_that_people_read() -> None:
    with show_class_names({"no_tumor": "Pas de tumeur"}):
        shown = figures.draw_counts({"test": {"no_tumor": 2, "glioma": 1}})
        assert name_class("glioma") == "glioma"
    legend = [text.get_text() for text in shown.legends[0].get_texts()]
    assert legend == ["Pas de tumeur", "glioma"] and name_class("no_tumor") == "no_tumor"
