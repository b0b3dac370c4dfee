"""Names as text for people. Pure."""


def printable(text: str) -> str:
    """The same in one line without control characters: names come from others and go to logs and terminals."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
