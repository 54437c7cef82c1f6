"""A parser for the report: its marked numbers, its other text and its tags."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "wbr", "img", "hr", "input"}
NO_TEXT = {"svg", "style", "script", "pre", "code", "q", "title", "head"}  # drawings and quotations
Attributes = dict[str, str]


@dataclass
class Page(HTMLParser):
    """The content of a page. Parsing fails at a tag that closes in the wrong order."""

    # Attributes and text of each <data>.
    numbers: list[tuple[Attributes, str]] = field(default_factory=list)
    # All other text before the model card.
    loose: list[str] = field(default_factory=list)
    tags: list[tuple[str, Attributes]] = field(default_factory=list)
    open: list[tuple[str, Attributes]] = field(default_factory=list)

    broken: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag == "data":
            self.numbers.append((attributes, ""))
        self.broken = tag == "wbr"  # the next text continues this one
        if tag not in VOID and not self.inside("svg"):
            self.open.append((tag, attributes))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and not (self.inside("svg") and tag != "svg"):
            closed, _ = self.open.pop()
            assert closed == tag, f"</{tag}> closes <{closed}>"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][0] == "data":
            marks, text = self.numbers[-1]
            self.numbers[-1] = marks, text + data
            return
        in_card = "card" in [attributes.get("id") for _, attributes in self.open]
        if not data.strip() or in_card or self.inside(*NO_TEXT):
            return
        if self.broken and self.loose:
            self.loose[-1] += data
        else:
            self.loose.append(data.strip())

    def inside(self, *tags: str) -> bool:
        """Return whether one of these tags is open."""
        return any(tag in tags for tag, _ in self.open)

    def of(self, *tags: str) -> list[Attributes]:
        """Return the attributes of all tags with these names."""
        return [attributes for tag, attributes in self.tags if tag in tags]


def parse(html: str) -> Page:
    """Parse a page. Raises `AssertionError` for a tag that is not closed."""
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open, page.open
    return page
