"""Names for classes and files: odd ones that once went wrong, and others by hypothesis."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# Names with a meaning in YAML, CSV, HTML, Markdown, TeX, a shell, a terminal, MLflow or a font.
ODD = [
    "Corn_(maize)___healthy", "colt's foot", "$5_$10", "_background", "x" * 255, "é" * 127,
    "😀" * 63, "001", "1e5", "NA", "null", "yes", " lead", "trail ", "-rf", "a\nb", "a\rb",
    "\r\n",
    "\t", "a\\nb", "a,b;c", 'say "hi"', "<b>&amp;", "50% off", "C# & <b>", "#1", "@me :cat:",
    "[x](y)", "a|b", "12. cat", "`id`", "$(id)", "{{ x }}", "${item}", "%s", "=1+1", "日本語",
    "кошка",
    "قطة", "\u202egnp", "क्षत्रिय", "👨\u200d👩", "\ufeffbom", "\u2028", "\x1b[2J", "\x01",
    "_x28_",
    "(", "#0072b2", ' id="x"', "url(#x)", "label", "path", "...", "~", "*?[a]",
]  # fmt: skip

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))  # `EXAMPLES=2000 pytest …` tries more names

quick = settings(
    max_examples=EXAMPLES or 60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def names() -> st.SearchStrategy[str]:
    """Draw a name that a file system takes, often a variation of an odd one."""
    signs = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
    joined = st.lists(
        st.sampled_from(ODD) | st.text(signs, min_size=1, max_size=4), min_size=1, max_size=3
    ).map("".join)
    return (
        (st.sampled_from(ODD) | st.text(signs, min_size=1, max_size=255) | joined)
        .map(fit)
        .filter(lambda name: name.strip("."))
    )


def fit(name: str) -> str:
    """Cut a name to the 255 bytes that a file system takes."""
    return name.encode()[:255].decode(errors="ignore")


def classes(smallest: int = 2, largest: int = 6) -> st.SearchStrategy[list[str]]:
    """Draw different names of classes, sorted as the pipeline sorts them."""
    return st.lists(names(), min_size=smallest, max_size=largest, unique=True).map(sorted)
