"""The wire format of protocol buffers, read strictly and without a schema compiler.

References:
    https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from multipress.errors import ArtifactError

__all__ = ["numbers", "read_message", "signed", "single", "text"]

_DAMAGED = "The graph is no ONNX model that can be read"

Values = list[int | bytes]


def read_message(data: int | bytes, known: Mapping[int, bool], what: str) -> dict[int, Values]:
    """The fields of a message: number to its values, in order; an absent field has an empty list.

    Args:
        data: The message's bytes.
        known: Field numbers that may be there, each with whether it may come more than once. (A field that
            is there twice but is single would be merged by some readers and overwritten by others.)
        what: Name of the message, for errors.

    Raises:
        ArtifactError: the bytes are no message, or it has another field.
    """
    if isinstance(data, int):
        raise ArtifactError(f"{_DAMAGED}: a number stands where a message should.")
    fields: dict[int, Values] = {number: [] for number in known}
    at, end = 0, len(data)
    while at < end:
        # Most keys and lengths have one byte: a call less for each halves the time.
        key, at = (data[at], at + 1) if data[at] < 128 else _varint(data, at)
        number, kind = key >> 3, key & 7
        values = fields.get(number)
        if values is None or (values and not known[number]):
            problem = "has twice" if values else "has"
            raise ArtifactError(f"The graph's {what} {problem} the field {number}, which multipress does not write.")
        if kind == 2:
            size, at = (data[at], at + 1) if at < end and data[at] < 128 else _varint(data, at)
        elif kind == 0:
            value, at = _varint(data, at)
            values.append(value)
            continue
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ArtifactError(f"{_DAMAGED}: wire type {kind}.")
        if size > end - at:
            raise ArtifactError(f"{_DAMAGED}: it is cut.")
        values.append(data[at : at + size])
        at += size
    return fields


def single(values: Values, default: int | bytes) -> int | bytes:
    """The one value of a field that is there once or not at all."""
    return values[0] if values else default


def text(value: int | bytes) -> str:
    """A value as text; damaged UTF-8 becomes U+FFFD."""
    if isinstance(value, int):
        raise ArtifactError(f"{_DAMAGED}: a number stands where a text should.")
    return value.decode(errors="replace")


def signed(value: int | bytes) -> int:
    """A value as the signed 64-bit number it means."""
    if not isinstance(value, int):
        raise ArtifactError(f"{_DAMAGED}: a text stands where a number should.")
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def numbers(values: Values) -> list[int]:
    """All signed numbers of a repeated field, packed or not."""
    found: list[int] = []
    for value in values:
        found.extend([signed(value)] if isinstance(value, int) else map(signed, _packed(value)))
    return found


def _packed(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ArtifactError(f"{_DAMAGED}: it is cut.")
