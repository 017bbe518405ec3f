"""Protocol buffers on the wire: a message as a list of (field number, value), read and written without a schema.

value: int for varints, Fixed for fixed widths, a memoryview (not copied) for everything with a length.
Source: protobuf.dev, 'Encoding'.
"""
import struct

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """The bytes are no protocol buffer message."""


def fields(data):
    """Yield (number, value) of the message in `data` (bytes or memoryview); raises WireError."""
    if isinstance(data, int):
        raise WireError("a number is where a message belongs")
    view, at = memoryview(data), 0
    while at < len(view):
        key, at = _varint(view, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(view, at)
        elif kind == LENGTH:
            size, at = _varint(view, at)
            value, at = view[at:at + size], at + size
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
            value, at = Fixed(view[at:at + size]), at + size
        else:
            raise WireError("wire type {} at byte {}".format(kind, at))
        if at > len(view) or number == 0:
            raise WireError("breaks off at byte {}".format(len(view)))
        yield number, value


def message(items):
    """Bytes of a message with these (number, value) in this order; value as from fields(), or str, or bytes."""
    parts = []
    for number, value in items:
        if isinstance(value, int):
            parts += [encoded_varint(number << 3 | VARINT), encoded_varint(value)]
        elif isinstance(value, Fixed):
            parts += [encoded_varint(number << 3 | (FIXED32 if len(value) == 4 else FIXED64)), bytes(value)]
        else:
            value = value.encode("utf-8") if isinstance(value, str) else value
            parts += [header(number, len(value)), value]
    return b"".join(parts)


def header(number, length):
    """What stands before a value that has a length."""
    return encoded_varint(number << 3 | LENGTH) + encoded_varint(length)


class Fixed(bytes):
    """The 4 or 8 bytes of a fixed-width field."""

    @classmethod
    def from_float(cls, value):
        """A float, as 4 bytes."""
        return cls(struct.pack("<f", value))


def encoded_varint(value):
    """A non-negative or negative 64-bit integer as a varint."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value):
    """What a varint says when it is an int64; raises WireError for a field of another kind."""
    if not isinstance(value, int):
        raise WireError("bytes are where a number belongs")
    return value - (1 << 64) if value >= 1 << 63 else value


def integers(value):
    """The int64 in one field of a repeated one: a varint, or packed ones."""
    if isinstance(value, int):
        return [signed(value)]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(signed(number))
    return numbers


def text(value):
    """The string in a field; raises WireError where it is none."""
    if isinstance(value, int):
        raise WireError("a number is where a text belongs")
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("a text is no UTF-8") from None


def _varint(view, at):
    result = shift = 0
    while True:
        if at >= len(view) or shift > 63:
            raise WireError("a varint breaks off at byte {}".format(at))
        byte = view[at]
        at += 1
        result |= (byte & 0x7f) << shift
        if byte < 0x80:
            return result, at
        shift += 7
