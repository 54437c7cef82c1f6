"""The report's page taken apart, for the tests: marked numbers, loose text, pictures, and the frame that readers need."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "wbr", "img", "hr", "input"}
NO_TEXT = {"svg", "style", "pre", "code", "q", "title", "head"}  # drawn, or the words of others
Attributes = dict[str, str]


@dataclass
class Page(HTMLParser):
    """Fails on a tag that closes out of turn."""

    numbers: list[tuple[Attributes, str]] = field(
        default_factory=list
    )  # marks of a <data>, and its text
    loose: list[str] = field(
        default_factory=list
    )  # all other text of the sections before the model card
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
        self.broken = tag == "wbr"  # what follows goes on with the same text
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
        elif (
            data.strip()
            and not self.inside(*NO_TEXT)
            and "card" not in [attributes.get("id") for _, attributes in self.open]
        ):
            if self.broken and self.loose:
                self.loose[-1] += data
            else:
                self.loose.append(data.strip())

    def inside(self, *tags: str) -> bool:
        """Say whether one of these is open."""
        return any(tag in tags for tag, _ in self.open)

    def of(self, *tags: str) -> list[Attributes]:
        """Return the attributes of all tags of these names."""
        return [attributes for tag, attributes in self.tags if tag in tags]


def parse(html: str) -> Page:
    """Take a page apart. Raises `AssertionError` where a tag is not closed."""
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open, page.open
    return page
