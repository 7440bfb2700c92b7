"""Picture files become the arrays that they hold, or an error that names the file and the kind."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from tfgan_med.data import decode
from tfgan_med.data.records import Part

LIMIT = 100_000_000
GRAY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOR = np.stack([GRAY, GRAY[::-1], GRAY.T], axis=-1)
DEEP = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)

Array = npt.NDArray[Any]


def saved(path: Path, array: Array, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def picture(path: Path) -> Array:
    return decode.read_picture(Part(path), LIMIT)


def png(path: Path, width: int, height: int, bits: int, color: int, rows: bytes) -> Path:
    """A PNG written by hand, for the kinds that Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_lossless_formats_return_the_values_that_were_saved(tmp_path: Path, suffix: str) -> None:
    assert (picture(saved(tmp_path / f"g.{suffix}", GRAY)) == GRAY[..., None]).all()
    assert (picture(saved(tmp_path / f"c.{suffix}", COLOR)) == COLOR).all()


def test_lossless_webp_returns_the_values_that_were_saved(tmp_path: Path) -> None:
    assert (picture(saved(tmp_path / "c.webp", COLOR, lossless=True)) == COLOR).all()


@pytest.mark.parametrize(
    ("mode", "channels", "name"),
    [
        ("1", 1, "a.png"),
        ("L", 1, "a.png"),
        ("LA", 1, "a.png"),
        ("P", 3, "a.png"),
        ("RGB", 3, "a.png"),
        ("RGBA", 3, "a.png"),
        ("CMYK", 3, "a.jpg"),
        ("CMYK", 3, "a.tif"),
        ("YCbCr", 3, "a.jpg"),
    ],
)
def test_each_mode_becomes_gray_or_rgb(tmp_path: Path, mode: str, channels: int, name: str) -> None:
    path = saved(tmp_path / name, COLOR, mode)
    array = picture(path)
    assert array.shape == (16, 16, channels)
    assert array.dtype == np.uint8
    assert decode.picture_mode(Part(path)) == ("rgb" if channels == 3 else "gray")


def test_one_bit_pictures_become_black_and_white_and_one_bit_masks_0_and_1(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", GRAY > 99)
    assert (picture(path)[..., 0] == np.where(GRAY > 99, 255, 0)).all()
    assert (decode.read_labels(Part(path), LIMIT) == (GRAY > 99)).all()


def test_alpha_is_dropped_without_blending(tmp_path: Path) -> None:
    transparent = np.dstack([COLOR, np.zeros_like(GRAY)])
    assert (picture(saved(tmp_path / "a.png", transparent)) == COLOR).all()


def test_palette_pictures_give_colors_and_palette_masks_indices(tmp_path: Path) -> None:
    indices = (GRAY % 3).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png")
    table = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    assert (picture(tmp_path / "a.png") == table[indices]).all()
    assert (decode.read_labels(Part(tmp_path / "a.png"), LIMIT) == indices).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_kept(tmp_path: Path, name: str) -> None:
    array = picture(saved(tmp_path / name, DEEP))
    assert array.dtype == np.uint16
    assert (array[..., 0] == DEEP).all()


@pytest.mark.parametrize(("color", "kept"), [(2, 3), (6, 3), (4, 1)])
def test_sixteen_bit_color_png_keeps_its_bits(tmp_path: Path, color: int, kept: int) -> None:
    samples = {2: 3, 6: 4, 4: 2}[color]
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, samples)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    array = picture(png(tmp_path / "a.png", 5, 4, 16, color, rows))
    assert array.dtype == np.uint16
    assert (array == values[..., :kept]).all()


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64", "int16", "uint32"])
def test_tiff_of_any_depth_keeps_its_values(tmp_path: Path, dtype: str) -> None:
    values = np.array([[1, 2, 3], [1000, 30000, 7]]).astype(dtype)
    if dtype == "int16":
        values[0, 0] = -1024
    tifffile.imwrite(tmp_path / "a.tif", values)
    array = picture(tmp_path / "a.tif")
    assert array.dtype == {"uint16": np.uint16, "uint32": np.uint16}.get(dtype, np.float32)
    assert (array[..., 0] == values).all()


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_sixteen_bit_color_tiff_keeps_its_bits(tmp_path: Path, planar: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    assert (picture(tmp_path / "a.tif") == values).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_where_zero_is_white_is_inverted(tmp_path: Path, dtype: str) -> None:
    values = np.array([[0, 10], [200, 255]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    assert (picture(tmp_path / "a.tif")[..., 0] == np.iinfo(dtype).max - values).all()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_picture_mask_and_size(
    tmp_path: Path, name: str, orientation: int
) -> None:
    upright = np.zeros((24, 40), np.uint8)
    upright[:8, :24] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {"quality": 95}
    color = np.repeat(np.ascontiguousarray(stored)[..., None], 3, axis=-1)
    path = saved(tmp_path / name, color, exif=exif, **options)
    assert decode.picture_size(Part(path)) == (40, 24)
    assert (np.abs(picture(path)[..., 0].astype(int) - upright) < 10).all()
    assert (np.abs(decode.read_labels(Part(path), LIMIT).astype(int) - upright) < 10).all()


def test_instance_ids_above_255_are_kept(tmp_path: Path) -> None:
    ids = np.array([[0, 300], [65535, 1]], np.uint16)
    read = decode.read_labels(Part(saved(tmp_path / "a.png", ids)), LIMIT)
    assert (read == ids).all()
    assert read.dtype.kind == "u"


def test_masks_saved_with_three_equal_channels_are_read_and_colored_ones_refused(
    tmp_path: Path,
) -> None:
    mask = np.where(GRAY > 99, 255, 0).astype(np.uint8)
    path = saved(tmp_path / "a.png", np.dstack([mask] * 3))
    assert (decode.read_labels(Part(path), LIMIT) == mask).all()
    with pytest.raises(decode.PictureError, match="colour picture where a mask is expected"):
        decode.read_labels(Part(saved(tmp_path / "b.png", COLOR)), LIMIT)


def test_halves_are_cut_in_the_middle_and_odd_widths_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", COLOR)
    assert (decode.read_picture(Part(path, "left"), LIMIT) == COLOR[:, :8]).all()
    assert (decode.read_picture(Part(path, "right"), LIMIT) == COLOR[:, 8:]).all()
    assert decode.picture_size(Part(path, "left")) == (8, 16)
    with pytest.raises(decode.PictureError, match="the width is 15"):
        decode.read_picture(Part(saved(tmp_path / "b.png", COLOR[:, :15]), "left"), LIMIT)


NOISE = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.tif"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_file_is_truncated(tmp_path: Path, name: str, share: float) -> None:
    path = saved(tmp_path / name, NOISE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(decode.PictureError) as caught:
        picture(path)
    assert caught.value.kind == "truncated", str(caught.value)
    assert name in str(caught.value)


def test_a_cut_bitmap_says_how_much_is_there(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.bmp", NOISE)  # 64 * 64 * 3 + 54 = 12 342 bytes
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(decode.PictureError, match="truncated after 6 of 12 kB"):
        picture(path)


def test_a_cut_deep_tiff_is_truncated(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", NOISE.astype(np.uint16) * 257, photometric="rgb")
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:12000])
    with pytest.raises(decode.PictureError) as caught:
        picture(tmp_path / "a.tif")
    assert caught.value.kind == "truncated"


def test_one_changed_byte_in_a_png_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", NOISE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(decode.PictureError) as caught:
        picture(path)
    assert caught.value.kind == "damaged"


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"", "empty"), (b"not a picture", "not an image"), (b"\x89PNG\r\n\x1a\nxxxx", "damaged")],
)
def test_files_that_are_no_pictures_are_told_by_kind(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    path = tmp_path / "images" / "a.png"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(decode.PictureError, match=r"^images/a\.png: ") as caught:
        picture(path)
    assert caught.value.kind == kind


def test_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", COLOR, format="PNG")
    assert (picture(path) == COLOR).all()
    assert decode.read_header(path).format == "PNG"


def test_a_bomb_is_refused_without_being_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = b"\0" + bytes(30000 // 8)
    bomb = png(tmp_path / "a.png", 30000, 30000, 1, 0, row * 30000)
    assert bomb.stat().st_size < 200_000

    def never(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(decode, "_load", never)
    with pytest.raises(decode.PictureError, match="30000 x 30000") as caught:
        picture(bomb)
    assert caught.value.kind == "too large"


def test_a_tiff_with_a_huge_claimed_size_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 2), np.float64))
    data = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page: Any = tiff.pages[0]
        places = [page.tags[number].valueoffset for number in (256, 257)]
    for place in places:
        data = data[:place] + struct.pack("<H", 60000) + data[place + 2 :]
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(decode.PictureError) as caught:
        picture(tmp_path / "a.tif")
    assert caught.value.kind == "too large"


def test_unreadable_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(decode.PictureError, match=r"gone\.png: cannot be opened"):
        picture(tmp_path / "gone.png")
