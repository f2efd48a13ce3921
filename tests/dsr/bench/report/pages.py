"""What a page of a report is made of, and what it must not hold."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Structure(HTMLParser):
    """What a page is made of; `wrong` tells of tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.children: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        self.wrong += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._begin(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._begin(tag, attrs)

    def _begin(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.children += [(self.open[-1], tag)] if self.open else []
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def values(self, name: str) -> list[str]:
        return [value for _, each, value in self.attributes if each == name]


def check(page: str, drawn: int) -> None:
    found = Structure(page)
    assert found.wrong == []
    assert "script" not in found.tags
    assert not {"src", "href", "style"} & {name for _, name, _ in found.attributes}
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    addresses = {value for _, _, value in found.attributes if "http" in value}
    assert addresses <= {"http://www.w3.org/2000/svg"}
    pictures = 2 * drawn  # for a phone and for a wide screen
    assert found.tags.count("svg") == pictures
    assert found.children.count(("svg", "title")) == found.children.count(("svg", "desc")) == pictures
    ids = found.values("id")
    assert len(set(ids)) == len(ids) == 2 * pictures
    assert [each for both in found.values("aria-labelledby") for each in both.split()] == ids
    assert "\x1b" not in page and "\u202e" not in page
