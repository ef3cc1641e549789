"""The elements and words of a page, checked for being well-formed while it is read."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "path", "circle"}


class Outline(HTMLParser):
    """Elements with their attribute names, text, and whether everything opened is closed in order."""

    def __init__(self, document: str):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.words = [], [], []
        self.feed(document)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, tuple(sorted(name for name, _ in attrs))))
        self.links = [value for name, value in attrs if name in ("src", "href")]
        assert all(link.startswith("data:image/png;base64,") for link in self.links)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, tuple(sorted(name for name, _ in attrs))))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
