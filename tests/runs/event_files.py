"""A small reader of event files: the protocol buffers of a folder as TensorBoard puts them together."""

import struct


def masked_crc32c(content):
    """CRC-32C (RFC 3720 §12.1), a bit at a time, and masked as TensorFlow's record_writer.cc does."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_fields(content):
    """{field: [values]} of one message; bytes for strings and messages."""
    fields, i = {}, 0

    def base128():
        nonlocal i
        value = shift = 0
        while True:
            byte = content[i]
            i, value, shift = i + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while i < len(content):
        key = base128()
        if key & 7 == 0:
            value = base128()
        else:
            size = {1: 8, 5: 4, 2: None}[key & 7]
            size = base128() if size is None else size
            value, i = content[i : i + size], i + size
            if key & 7 != 2:
                (value,) = struct.unpack("<d" if size == 8 else "<f", value)
        fields.setdefault(key >> 3, []).append(value)
    return fields


def read_events(path):
    """The events of one file, as far as it is whole."""
    content, events = path.read_bytes(), []
    while len(content) >= 16:
        (length,) = struct.unpack("<Q", content[:8])
        if len(content) < 16 + length:
            break
        sums = struct.unpack("<I", content[8:12]) + struct.unpack("<I", content[12 + length : 16 + length])
        assert sums == (masked_crc32c(content[:8]), masked_crc32c(content[12 : 12 + length]))
        events.append(read_fields(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def read_folder(folder):
    """{tag: [(step, value), ...]}: files in the order of their names, and what a session start takes back is left out."""
    series = {}
    for path in sorted(folder.glob("*tfevents*")):
        for each in read_events(path):
            step = each.get(2, [0])[0]
            if 7 in each and read_fields(each[7][0])[1] == [1]:
                series = {tag: [point for point in points if point[0] < step] for tag, points in series.items()}
            for summary in each.get(5, []):
                for value in map(read_fields, read_fields(summary)[1]):
                    number = value[2][0] if 2 in value else read_fields(value[8][0])[8][0].decode()
                    series.setdefault(value[1][0].decode(), []).append((step, number))
    return series
