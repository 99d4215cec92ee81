"""A page of a PDF as a picture, with a quote marked on it as with a pen.

PNG is written here, in twenty lines: an imaging library would be the largest dependency of the service.
"""

from __future__ import annotations

import base64
import re
import struct
import zlib
from pathlib import Path
from typing import Any

from . import child
from .columns import page_text
from .extraction import open_pdf

#: Width of a picture in pixels.
WIDTH = 1000
_MOST_HEIGHT = 4000
_TIMEOUT_SECONDS = 30.0
# What is left of red, green and blue under the pen (of 256).
_PEN = (256, 236, 120)


async def render_in_child(path: Path, number: int, quote: str, memory_bytes: int) -> bytes:
    """Page *number* (from 1) as a PNG; *quote* is marked where its words stand on the page in order.

    Raises:
        DocumentError: the page cannot be drawn.
    """
    wanted = {"path": str(path), "number": number, "quote": quote}
    result = await child.run("render", wanted, timeout=_TIMEOUT_SECONDS, memory_bytes=memory_bytes)
    return base64.b64decode(result["png"])


def render(path: Path, number: int, quote: str) -> str:
    """The same in this process; base64.

    Raises:
        DocumentError: as `extraction.open_pdf`.
    """
    with open_pdf(path) as document:
        page = document[number - 1]
        width, height = page.get_size()
        scale = min(WIDTH / width, _MOST_HEIGHT / height)
        bitmap = page.render(scale=scale, rev_byteorder=True, no_smoothpath=False)
        pixels, channels = bytearray(bitmap.buffer), bitmap.n_channels
        for left, top, right, bottom in _places(page, quote):
            box = (int(left * scale), int(top * scale), int(right * scale) + 1, int(bottom * scale) + 1)
            _mark(pixels, bitmap.stride, channels, bitmap.width, bitmap.height, box)
        return base64.b64encode(_png(pixels, bitmap.width, bitmap.height, bitmap.stride, channels)).decode()


def _places(page: Any, quote: str) -> list[tuple[float, float, float, float]]:
    """Boxes of a quote: left, top, right, bottom in points from the upper left corner. None on a turned page."""
    words = quote.split()
    if not words or page.get_rotation():
        return []
    text_page = page.get_textpage()
    text = page_text(text_page)
    found = re.search(r"[\s\u00ad\ufffe-]*\s*".join(map(re.escape, words)), text.text)
    if not found:
        return []
    origin_x, _, _, origin_top = page.get_cropbox()
    boxes = []
    for first, count in text.characters(found.start(), found.end()):
        for index in range(text_page.count_rects(first, count)):
            left, bottom, right, top = text_page.get_rect(index)
            boxes.append((left - origin_x, origin_top - top, right - origin_x, origin_top - bottom))
    return boxes


def _mark(
    pixels: bytearray, stride: int, channels: int, width: int, height: int, box: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = box
    left, right = max(0, left), min(width, right)
    tables = [bytes(value * share >> 8 for value in range(256)) for share in _PEN]
    for row in range(max(0, top), min(height, bottom)):
        for channel, table in enumerate(tables):
            place = slice(row * stride + left * channels + channel, row * stride + right * channels, channels)
            pixels[place] = pixels[place].translate(table)


def _png(pixels: bytearray, width: int, height: int, stride: int, channels: int) -> bytes:
    """A PNG of 8 bits a channel (https://www.w3.org/TR/png-3/), its rows without a filter."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels[row * stride : row * stride + width * channels] for row in range(height))
    kind = {1: 0, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")
