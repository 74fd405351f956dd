"""Text from elsewhere on people's terminals."""


def printable(text: str) -> str:
    """The server's words without control characters, which could steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def printable_lines(text: str) -> str:
    """The server's text of several lines, each of them made printable; tabs keep their width."""
    return "\n".join(map(printable, text.expandtabs(4).splitlines()))
