"""Picture files that lie about their size or their kind, in everything of ours that opens one."""

import io
import struct
import zlib

import numpy as np
import pytest
from bounds import bounded
from PIL import Image

from faceclip.bulk.store import Store, read_picture
from faceclip.errors import InputError
from faceclip.files.picture import open_picture, upright_rgb
from faceclip.train.prepare.crops import _read
from faceclip.train.samples import _open


def from_file(data, folder):
    path = folder / "a.jpg"
    path.write_bytes(data)
    return _read(path)


READERS = {
    "plain": lambda data, folder: open_picture(data),
    "prepare": from_file,
    "eval": lambda data, folder: read_picture(data),
    "answer": lambda data, folder: Store(folder / "store").put("a", data),
    "training": lambda data, folder: _open(data),
}


def encoded(picture, kind, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A black picture of any size in some hundred kilobytes, without making it first."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    squeeze = zlib.compressobj(9)
    rows = b"".join(squeeze.compress(bytes(1 + 3 * width)) for _ in range(height)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiled_tiff() -> bytes:
    """A TIFF of 8 x 8 px in one tile of 30000 x 30000."""
    entries = [
        (256, 8),
        (257, 8),
        (258, 8),
        (259, 1),
        (262, 1),
        (277, 1),
        (322, 30000),
        (323, 30000),
        (324, 8),
        (325, 8),
    ]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + fields + struct.pack("<I", 0)


WIDE = png(13_000, 10_000)
assert len(WIDE) < 1_000_000


@pytest.mark.parametrize("reader", READERS)
def test_a_small_file_of_many_pixels_is_refused_before_it_is_unpacked(reader, tmp_path):
    with bounded(seconds=1, megabytes=20), pytest.raises(InputError, match="13000 x 10000 px"):
        READERS[reader](WIDE, tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_the_largest_that_a_small_file_may_be_stays_within_the_bar(reader, tmp_path):
    data = png(4032, 3024)  # a phone's picture
    with bounded():
        READERS[reader](data, tmp_path)
    clear = encoded(Image.new("RGBA", (2500, 2500), (0, 0, 255, 0)), "PNG")
    with bounded():
        READERS[reader](clear, tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_a_tile_larger_than_its_picture(reader, tmp_path):
    with bounded(seconds=1, megabytes=20), pytest.raises(InputError):
        READERS[reader](tiled_tiff(), tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_postscript_is_no_picture(reader, tmp_path, monkeypatch):
    """Pillow has another program run it, whatever the file is called."""
    ran = tmp_path / "gs-was-run"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {ran}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(InputError, match="no picture at all"):
        READERS[reader](data, tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("data", [b"", b"<html>no picture here</html>", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_no_pictures(reader, data, tmp_path):
    with bounded(), pytest.raises(InputError):
        READERS[reader](data, tmp_path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_cut_pictures(reader, kind, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    data = encoded(noise, kind)
    READERS[reader](data, tmp_path)
    with bounded(), pytest.raises(InputError, match="no whole picture|damaged"):
        READERS[reader](data[: len(data) // 2], tmp_path)


def test_a_large_photo_is_no_bomb():
    noise = np.random.default_rng(0).integers(0, 256, (4000, 6000, 3), np.uint8)  # 24 megapixels
    data = encoded(Image.fromarray(noise), "JPEG", quality=50)
    assert open_picture(data).size == (6000, 4000)


def test_turned_clear_grey_and_deep_pictures_become_upright_rgb():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = open_picture(encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif.tobytes()))
    assert upright_rgb(turned).size == (10, 20)
    clear = open_picture(encoded(Image.new("RGBA", (4, 4), (0, 0, 255, 0)), "PNG"))
    assert upright_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    deep = open_picture(encoded(Image.fromarray(np.full((4, 4), 0x8000, np.uint16)), "PNG"))
    assert upright_rgb(deep).getpixel((0, 0)) == (128, 128, 128)
