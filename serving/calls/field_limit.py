"""How many fields a message holds, told before it is parsed.

Parsing holds the interpreter from the first byte to the last. A message of 4 MiB that is one tensor takes less than a
millisecond; one that is two million empty submessages takes a tenth of a second, and thirty times its size in memory.
"""

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ..errors import InvalidRequestError

MOST_FIELDS = 2**16
"""In one message, those of its submessages and the elements of packed fields included; 16384 codes take 49152."""
_DEEPEST = 32

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_KINDS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
        FieldDescriptor.CPPTYPE_BOOL,
        FieldDescriptor.CPPTYPE_ENUM,
    }
)


def check_field_count(data: bytes, descriptor: Descriptor) -> None:
    """Makes sure that a message does not hold more fields than any request needs.

    Args:
        data: The message.
        descriptor: Its type.

    Raises:
        InvalidRequestError: If it holds more, or is no message.
    """
    count = 0
    position = 0
    kind: Descriptor | None = descriptor
    end = len(data)
    outer: list[tuple[Descriptor | None, int]] = []
    while True:
        if count > MOST_FIELDS:
            raise InvalidRequestError(
                f"the message holds more than {MOST_FIELDS} fields, the limit of one request: split the request",
                reason="TOO_MANY_FIELDS",
                metadata={"limit": MOST_FIELDS},
            )
        while position >= end:
            if position > end:
                raise malformed()
            if not outer:
                return
            kind, end = outer.pop()
        tag, position = _varint(data, position)
        count += 1
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type == _LENGTH_DELIMITED:
            size, position = _varint(data, position)
            if position + size > end:
                raise malformed()
            field = kind.fields_by_number.get(tag >> 3) if kind else None
            if field is not None and field.message_type is not None:
                outer.append((kind, end))
                kind, end = field.message_type, position + size
                if len(outer) > _DEEPEST:
                    raise malformed()
                continue
            if field is not None and field.cpp_type in _VARINT_KINDS:
                # Of a packed field; each element takes a byte at least.
                count += size
            position += size
        elif wire_type in _FIXED_SIZES:
            position += _FIXED_SIZES[wire_type]
        else:
            raise malformed()


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number that starts at a position, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
    raise malformed()


def malformed() -> InvalidRequestError:
    """Says that bytes are no message of their type."""
    return InvalidRequestError(
        "the request's bytes are no message of this method: build both sides from the same .proto files",
        reason="MESSAGE_MALFORMED",
    )
