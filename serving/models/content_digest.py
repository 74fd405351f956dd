"""The SHA-256 that a model file states of its own content, compared before anything else is made of the file.

    infosink.content_sha256 = SHA-256(the file, with the 64 digits of this value replaced by zeros)

It is in the metadata, near the end of a file, and the doc_string, near the beginning, says so: a flipped bit is noticed
wherever it is, and so is a file that was cut short. It tells of damage, not of intent: whoever can write a file can
write its digest. Files that were made before there was one have none, and are taken as they are.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from ..errors import StartupError, quoted

_KEY = b"infosink.content_sha256"
# Fields of ONNX's ModelProto, and of the StringStringEntryProto that its metadata is made of.
_DOC_STRING, _METADATA = 6, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_MOST_FIELDS = 256
"""That are looked at in one message, so that garbage takes no time; a model has some twenty, its graph being one."""
_MOST_VARINT_BYTES = 10
_SHOWN_DIGITS = 12


def verified_sha256(content: bytes, path: Path) -> str:
    """The SHA-256 of a model file's bytes, once its content is found to be what it states.

    Args:
        content: The file's bytes, whatever they are; what is no ONNX file is left to onnxruntime to refuse.
        path: Where it was read, for messages.

    Raises:
        StartupError: If the file states another digest than that of its content, or several, or none though it says
            that it does.
    """
    values, announced = _stated(content)
    if not values and not announced:
        return sha256(content).hexdigest()
    if len(values) != 1:
        raise StartupError(
            f"{path} is damaged: it should hold {_KEY.decode()} once, and holds it {len(values)} times: "
            "copy it again, or export it again"
        )
    (value,) = values
    view = memoryview(content)
    digest = sha256(view[: value.start])
    # What comes before is nearly all of the file, and is hashed once for both.
    whole = digest.copy()
    whole.update(view[value.start :])
    digest.update(b"0" * (value.stop - value.start))
    digest.update(view[value.stop :])
    stated, found = content[value].decode("ascii", "replace"), digest.hexdigest()
    if found != stated:
        raise StartupError(
            f"{path} is damaged: its content has the SHA-256 {quoted(found, _SHOWN_DIGITS)}, and it states "
            f"{quoted(stated, _SHOWN_DIGITS)}: copy it again, or export it again"
        )
    return whole.hexdigest()


def _stated(content: bytes) -> tuple[list[slice], bool]:
    """Where the values of the key are, and whether the doc_string says that there is one."""
    view = memoryview(content)
    values: list[slice] = []
    announced = False
    for number, field in _fields(content, slice(0, len(content))):
        if number == _DOC_STRING:
            announced |= content.find(_KEY, field.start, field.stop) >= 0
        elif number == _METADATA:
            # Of a field that is there several times, the last counts.
            entry = dict(_fields(content, field))
            if _ENTRY_KEY in entry and view[entry[_ENTRY_KEY]] == _KEY:
                values.append(entry.get(_ENTRY_VALUE, slice(field.stop, field.stop)))
    return values, announced


def _fields(content: bytes, message: slice) -> Iterator[tuple[int, slice]]:
    """The number of each field of a protobuf message and where its value is; ends early at what is no field."""
    at = message.start
    for _ in range(_MOST_FIELDS):
        try:
            tag, start = _varint(content, at)
            match tag % 8:
                case 0:
                    stop = _varint(content, start)[1]
                case 1:
                    stop = start + 8
                case 2:
                    length, start = _varint(content, start)
                    stop = start + length
                case 5:
                    stop = start + 4
                case _:
                    return
        except IndexError:
            return
        if stop > message.stop:
            return
        yield tag // 8, slice(start, stop)
        at = stop


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends.

    Raises:
        IndexError: If the content ends first, or the number does not.
    """
    value = 0
    for place in range(_MOST_VARINT_BYTES):
        byte = content[at + place]
        value |= (byte % 128) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise IndexError
