"""Pictures made by code: ordinary ones, and the awkward and broken files that people bring."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image


def photo(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    """A smooth colourful picture, different at every corner, in RGB."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def mask(width: int = 48, height: int = 32, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    """White box (left, top, right, bottom) on black, mode L; by default a good quarter in the middle."""
    picture = Image.new("L", (width, height))
    picture.paste(255, box or (width // 4, height // 4, width * 3 // 4, height * 3 // 4))
    return picture


def png_bytes(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, bits: int, colour_type: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))


def write_bomb(path: Path, side: int = 30000) -> Path:
    """A complete and valid 1-bit PNG of side x side black pixels in about 100 KB."""
    deflate = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))

    def parts() -> Iterator[bytes]:
        for _ in range(side):
            yield deflate.compress(row)
        yield deflate.flush()

    path.write_bytes(png_header(side, side, 1, 0) + png_chunk(b"IDAT", b"".join(parts())) + png_chunk(b"IEND", b""))
    return path


def write_rgb16(path: Path, pixels: np.ndarray) -> Path:
    """(H, W, 3) uint16 as a PNG of 16 bits a channel, which Pillow cannot write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    data = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    path.write_bytes(png_header(width, height, 16, 2) + data)
    return path
