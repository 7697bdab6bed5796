"""A reader of weights and words written from docs/format.md alone: plain Python, number by number, nothing of ours.

It knows no zstd, which is another library's; a stream of it is given to the function that the caller brings.
"""

import json
import struct


class Bytes:
    def __init__(self, data):
        self.data, self.at = bytes(data), 0

    def take(self, count):
        assert self.at + count <= len(self.data), "cut"
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self):
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7


def decode_packet(data, unzstd):
    """Dtype, shape and the items' bytes of a packet."""
    reader = Bytes(data)
    version, layout, dtype, dimensions = reader.take(4)
    assert version == 1
    shape = tuple(reader.varint() for _ in range(dimensions))
    count = 1
    for size in shape:
        count *= size
    width = (1, 2, 4)[dtype]
    if layout == 0:
        items = reader.take(count * width)
    elif layout == 1:
        items = planes(reader, count, width, unzstd)
    elif layout == 3:
        items = kinds(reader, count, unzstd)
    elif layout == 4:
        items = gaps(reader, count, unzstd)
    else:
        present = stream(reader, count, unzstd)
        others = planes(reader, sum(present), width, unzstd)
        items, at = bytearray(count * width), 0
        for index, is_there in enumerate(present):
            if is_there:
                items[index * width : (index + 1) * width] = others[at : at + width]
                at += width
    left = reader.take(len(data) - reader.at)
    assert not any(left)
    return ("int8", "float16", "float32")[dtype], shape, bytes(items)


def kinds(reader, count, unzstd):
    found = stream(reader, count, unzstd)
    others = iter(planes(reader, found.count(3), 1, unzstd))
    return bytes((0, 1, 255)[kind] if kind < 3 else next(others) for kind in found)


def gaps(reader, count, unzstd):
    found = stream(reader, reader.varint(), unzstd)
    others = iter(planes(reader, sum(symbol < 63 and symbol % 3 == 2 for symbol in found), 1, unzstd))
    items = []
    for symbol in found:
        if symbol == 63:
            items += [0] * 21
        else:
            items += [0] * (symbol // 3)
            items.append((1, 255)[symbol % 3] if symbol % 3 < 2 else next(others))
    return bytes(items + [0] * (count - len(items)))


def planes(reader, count, width, unzstd):
    found = [stream(reader, count, unzstd) for _ in range(width)]
    found[-1] = [symbol ^ 128 for symbol in found[-1]]
    return bytes(found[plane][index] for index in range(count) for plane in range(width))


def stream(reader, count, unzstd):
    codec, low, span = reader.take(3)
    payload = reader.take(reader.varint())
    if count == 0 or span == 0:
        assert codec == 0
        assert not payload
        return [low] * count
    alphabet = span + 1
    size = group_size(alphabet, 4096 if codec == 2 else 256)
    if codec == 2:
        groups = ans(payload, alphabet, size, -(-count // size))
    else:
        groups = unzstd(payload) if codec == 1 else payload
        assert len(groups) == -(-count // size)
    symbols = []
    for group in groups:
        digits = []
        for _ in range(size):
            digits.append(group % alphabet)
            group //= alphabet
        symbols += [low + digit for digit in reversed(digits)]
    return symbols[:count]


def group_size(alphabet, limit):
    for size in (8, 4, 2):
        if alphabet**size <= limit:
            return size
    return 1


def ans(payload, alphabet, size, count):
    weights = []
    for byte in payload[:alphabet]:
        exponent, mantissa = byte >> 3, byte & 7
        weights.append(float(mantissa if exponent == 0 else (mantissa + 8) << (exponent - 1)))
    largest = max(weights)
    weights = [weight / largest for weight in weights]
    p = weights
    for _ in range(size - 1):
        p = [one * weight for one in p for weight in weights]
    total = 0.0
    for one in p:
        total += one
    factor = ((1 << 24) - len(p)) / total
    begins, before = [], 0.0
    for index, one in enumerate(p):
        begins.append(int(before * factor) + index)
        before += one
    begins.append(1 << 24)
    words = list(struct.unpack(f"<{(len(payload) - alphabet) // 4}I", payload[alphabet:]))
    state = words.pop() if words else 0
    while state < 1 << 32 and words:
        state = (state << 32) + words.pop()
    groups = []
    for _ in range(count):
        q = state & ((1 << 24) - 1)
        low, high = 0, len(p)
        while high - low > 1:  # the last interval that begins at or before q
            middle = (low + high) // 2
            low, high = (middle, high) if begins[middle] <= q else (low, middle)
        state = (state >> 24) * (begins[low + 1] - begins[low]) + q - begins[low]
        if state < 1 << 32 and words:
            state = (state << 32) + words.pop()
        groups.append(low)
    assert state == 0
    assert not words
    return groups


def numbers_of(kind, shape, items):
    letter, width = {"int8": ("b", 1), "float16": ("e", 2), "float32": ("f", 4)}[kind]
    return shape, struct.unpack(f"<{len(items) // width}{letter}", items)


def entries(data, manifest, unzstd):
    """Of every tensor by name its kind, shape and bytes, and those of its scale or None."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]

    def values(name):
        entry = header[name]
        kind, shape = {"F16": "float16", "F32": "float32", "U8": ""}[entry["dtype"]], tuple(entry["shape"])
        items = body[slice(*entry["data_offsets"])]
        return decode_packet(items, unzstd) if not kind else (kind, shape, items)

    for name, record in manifest["tensors"].items():
        if record["bits"] > 8:
            yield name, values(name), None
        elif manifest["format_version"] < 6:
            yield name, values(name), values(f"{name}.scale")
        else:
            both = Bytes(body[slice(*header[name]["data_offsets"])])
            scale = decode_packet(both.take(both.varint()), unzstd)
            yield name, decode_packet(both.take(len(both.data) - both.at), unzstd), scale


def stored_bytes(data, manifest, unzstd):
    """The bytes of every tensor's numbers and of its scale by name, as they are hashed."""
    return {name: (own[2], scale[2] if scale else b"") for name, own, scale in entries(data, manifest, unzstd)}


def weights(data, manifest, unzstd):
    """Shape and floats, in row-major order, of every tensor of a `model.safetensors` by name, tied ones too."""
    (length,) = struct.unpack("<Q", data[:8])
    header, found = json.loads(data[8 : 8 + length]), {}
    for name, own, scale in entries(data, manifest, unzstd):
        shape, numbers = numbers_of(*own)
        if scale:
            sizes, scales = numbers_of(*scale)
            groups = sizes[1] if len(sizes) == 2 else 1
            each = len(numbers) // len(scales)
            assert len(scales) == 1 or len(scales) == shape[0] * groups
            numbers = [number * scales[index // each] for index, number in enumerate(numbers)]
        found[name] = (shape, list(numbers))
    aliases = json.loads(header["__metadata__"].get("aliases", "{}"))
    return found | {other: found[name] for other, name in aliases.items()}


def tokenizer(data, unzstd):
    """The tokenizer's document without its words, and the words in the order of their ids; None where it has them."""
    reader = Bytes(data)
    assert reader.take(1) == b"\x01"
    rest, prefixes, endings = (unzstd(reader.take(reader.varint())) for _ in range(3))
    assert reader.at == len(data)
    words, before, at = [], b"", 0
    for shared in prefixes:
        end = endings.index(b"\0", at)
        before = before[:shared] + endings[at:end]
        at = end + 1
        words.append(before.decode())
    assert at == len(endings)
    return rest.decode(), words or None
