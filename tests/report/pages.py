"""A page as it is read, and the passphrase of those it is about."""

import html.parser

PASSPHRASE = "correct horse battery staple"


class Text(html.parser.HTMLParser):
    """The text of a page, and its elements."""

    def __init__(self, page):
        super().__init__()
        self.words, self.elements, self.style = [], [], False
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.style = tag == "style"

    def handle_endtag(self, tag):
        self.style = False

    def handle_data(self, data):
        if not self.style:
            self.words.append(data)


def results(document):
    return {check["check"]: check["result"] for check in document["checks"]}
