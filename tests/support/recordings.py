"""Recordings, damaged."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def flipped(data: bytes, bit: int) -> bytes:
    """*data* with one bit changed, counted from its first."""
    spoilt = bytearray(data)
    spoilt[bit // 8] ^= 1 << bit % 8
    return bytes(spoilt)


def uncountable(file: Path) -> None:
    """Flip the sign of one page's number of values: polars then wants more memory than there is, and aborts.

    In the page's header (Thrift, compact) field 1 of the struct 5 is that number as a zigzag varint.
    """
    count = 2 * pl.read_parquet(file).height
    varint = bytes([count]) if count < 0x80 else bytes([count & 0x7F | 0x80, count >> 7])
    data = file.read_bytes()
    place = data.index(b"\x2c\x15" + varint) + 2
    file.write_bytes(flipped(data, 8 * place))
