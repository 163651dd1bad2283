"""Safetensors files made by hand, byte by byte, right and wrong."""

import json


def file_bytes(header, data=b"", length=None, pad=b""):
    """`header` is a dict, a str or bytes; `length` replaces the true length."""
    text = (
        json.dumps(header).encode()
        if isinstance(header, dict)
        else header.encode()
        if isinstance(header, str)
        else header
    )
    text += pad
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}
