"""Text from elsewhere on people's terminals."""


def printable(text: str) -> str:
    """The server's words without control characters, which could steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
