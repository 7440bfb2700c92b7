"""Picture files to arrays: what the file says, unchanged, or an error that names the file.

Pillow reads what it can hold, tifffile the TIFF files it cannot, pydicom (extra `[dicom]`) DICOM.
Nothing is scaled here: the value window is one per data set and the business of the pipeline.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from tfgan_med.data.records import Part
from tfgan_med.errors import DataError

Array = npt.NDArray[Any]
Mode = Literal["gray", "rgb"]
Kind = Literal[
    "empty", "truncated", "damaged", "not an image", "too large", "unsupported", "no decoder"
]

SUFFIXES: dict[str, str] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".ima": "DICOM",
}
"""The format that each suffix promises; files are read by content, whatever their suffix."""

PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")

Image.MAX_IMAGE_PIXELS = None  # ours is `max_pixels`, an error with the file's name
ImageFile.LOAD_TRUNCATED_IMAGES = False


class PictureError(DataError):
    """A file that is no usable picture.

    Attributes:
        path: the file.
        kind: what is wrong, in a word or two.
        reason: the message without the file's name.
    """

    def __init__(self, path: Path, kind: Kind, reason: str, name: str | None = None) -> None:
        self.path, self.kind, self.reason = path, kind, reason
        super().__init__(f"{name or short_name(path)}: {reason}")


@dataclass(frozen=True)
class Header:
    """What a file says about its picture before any pixel is decoded.

    Attributes:
        format: `PNG`, `JPEG`, `TIFF`, `BMP`, `WEBP` or `DICOM`.
        width, height: pixels, after the turn that EXIF asks for.
        mode: `gray` or `rgb`, what `read_picture` will return.
        pixels: Pillow's mode, or bits per sample for files that Pillow does not hold.
        orientation: EXIF orientation, 1 for upright.
        icc: whether a colour profile is embedded; it is not applied.
        frames: pictures in the file; the first is read.
        synthetic: the file is marked as made by a network.
        burned_in: the DICOM header says that text is burned into the pixels.
    """

    format: str
    width: int
    height: int
    mode: Mode
    pixels: str
    orientation: int = 1
    icc: bool = False
    frames: int = 1
    synthetic: bool = False
    burned_in: bool = False


def read_picture(part: Part, max_pixels: int) -> Array:
    """The picture of a part, upright.

    Palettes and CMYK become RGB, one bit becomes 0 and 255, alpha is dropped. DICOM values are
    rescaled (CT: Hounsfield units), MONOCHROME1 is inverted so that larger is brighter; no window
    is applied, `default_window` gives the one in the header.

    Args:
        part: the file, or the half of it.
        max_pixels: larger pictures are refused from their header, before decoding.
    Returns:
        `(height, width, channels)`, 1 or 3 channels; uint8 in 0..255, uint16, or float32.
    Raises:
        PictureError: with the file's name and what is wrong.
    """
    with _named(part):
        return _half(_picture(part.path, max_pixels), part)


def read_labels(part: Part, max_pixels: int) -> npt.NDArray[np.integer[Any]]:
    """The values of a mask, an instance map or a class map as they are stored, upright.

    Palette files give their indices, one-bit files 0 and 1, colour files the value that their
    channels share.

    Returns:
        `(height, width)`, an integer type.
    Raises:
        PictureError: as `read_picture`, and if the channels differ or values are not whole.
    """
    with _named(part):
        return _half(_labels(part.path, max_pixels), part)


def read_header(path: Path) -> Header:
    """What the file says about its picture; nothing is decoded.

    Raises:
        PictureError: if the file is empty, no picture, or of a kind that is not read.
    """
    if is_dicom(path):
        return _dicom_header(path)
    with _opened(path) as image:
        return _header(path, image)


def picture_size(part: Part) -> tuple[int, int]:
    """Width and height of a part in pixels, upright, from the header."""
    with _named(part):
        header = read_header(part.path)
    return (header.width // 2 if part.half else header.width), header.height


def picture_mode(part: Part) -> Mode:
    """`gray` or `rgb`: what `read_picture` will return, from the header."""
    with _named(part):
        return read_header(part.path).mode


def default_window(part: Part) -> tuple[float, float] | None:
    """Values that become black and white as the DICOM header asks, if it does.

    In the values of `read_picture`: rescaled, and mirrored for MONOCHROME1. Other files have none.
    Source: DICOM PS3.3 C.11.2.1.2, the linear function.
    """
    with _named(part):
        return _dicom_window(part.path) if is_dicom(part.path) else None


def is_picture(path: Path) -> bool:
    """Whether the name promises a picture, or the content of a nameless file is DICOM."""
    return path.suffix.lower() in SUFFIXES or is_dicom(path)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by suffix, else by the letters DICM after 128 bytes."""
    suffix = path.suffix.lower()
    if SUFFIXES.get(suffix) == "DICOM":
        return True
    if suffix and suffix not in SUFFIXES and not suffix[1:].isdigit():
        return False  # notes and tables need not be opened; UIDs as names end in digits
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def hidden_name(relative: str) -> str:
    """A name that tells nothing about a patient, for files whose path might: a hash of the path."""
    return f"dicom-{hashlib.sha256(relative.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def short_name(path: Path) -> str:
    """Folder and name of a file for messages; of DICOM files only a hash."""
    name = "/".join(path.parts[-2:])
    return hidden_name(name) if is_dicom(path) else name


@contextlib.contextmanager
def _named(part: Part) -> Iterator[None]:
    """Let messages call a part by its name."""
    try:
        yield
    except PictureError as error:
        if part.name is None:
            raise
        raise PictureError(error.path, error.kind, error.reason, part.name) from None


def _picture(path: Path, max_pixels: int) -> Array:
    array = _read(path, max_pixels, _picture_of_pillow, _dicom_picture)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    array = array[..., None] if array.ndim == 2 else array
    if array.shape[-1] in (2, 4):  # alpha
        array = array[..., : array.shape[-1] - 1]
    if array.ndim != 3 or array.shape[-1] not in (1, 3):
        raise PictureError(
            path,
            "unsupported",
            f"the pixels have the shape {array.shape}; grey or RGB pictures are expected. "
            "Export single pictures with one or three channels.",
        )
    return _plain_type(array, path)


def _labels(path: Path, max_pixels: int) -> Array:
    array = _read(path, max_pixels, _labels_of_pillow, _dicom_labels)
    if array.ndim == 3:
        colors = array[..., : {2: 1, 4: 3}.get(array.shape[-1], array.shape[-1])]
        if (colors != colors[..., :1]).any():
            raise PictureError(
                path,
                "unsupported",
                "a colour picture where a mask is expected: one value per pixel. Save it as a grey "
                "or palette PNG; colour-coded maps that serve as input belong in inputs/.",
            )
        array = colors[..., 0]
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            raise PictureError(
                path,
                "unsupported",
                "the mask holds values that are not whole numbers. Save it with integer values.",
            )
        array = array.astype(np.int32)
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _read(path: Path, max_pixels: int, from_pillow: Any, from_dicom: Any) -> Array:
    """Decode a file after its header has passed; every failure becomes a `PictureError`."""
    if is_dicom(path):
        header = _dicom_header(path)
        _refuse_bomb(path, header, max_pixels)
        return np.asarray(from_dicom(path))
    with _opened(path) as image:
        header = _header(path, image)
        _refuse_bomb(path, header, max_pixels)
        if header.format == "PNG":
            _verify_png(path)
        if header.format == "TIFF" and (
            image.mode == "unreadable" or _deeper_than_pillow(image, header)
        ):
            return _turned(_read_tiff(path), header.orientation)
        if header.format == "PNG" and header.pixels in ("RGB;16", "LA;16", "RGBA;16"):
            return _turned(_read_deep_png(path, header.pixels), header.orientation)
        _load(path, image)
        # Pillow turns TIFF by itself while loading, and leaves the other formats as they are
        orientation = 1 if header.format == "TIFF" else header.orientation
        array = _turned(from_pillow(image, path), orientation)
        if header.format == "TIFF" and array.dtype == np.uint16 and _white_is_zero(image):
            array = np.uint16(65535) - array  # Pillow inverts 8 bits only
        return array


# Pillow


class _Unreadable:
    """Stands in for an image that Pillow cannot open but tifffile may."""

    format, mode, size, n_frames = "TIFF", "unreadable", (0, 0), 1

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The image of a file, its header read; a stand-in for TIFF that Pillow does not know."""
    with contextlib.ExitStack() as stack:
        try:
            start = _start(path)
            stream = stack.enter_context(path.open("rb"))
        except OSError as error:
            reason = f"cannot be opened ({error.strerror}). Check the file and its permissions."
            raise PictureError(path, "damaged", reason) from None
        try:
            image: Any = stack.enter_context(Image.open(stream, formats=PILLOW_FORMATS))
        except (UnidentifiedImageError, SyntaxError, OSError, ValueError, OverflowError, KeyError):
            if start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                raise _unknown(path, start) from None
            image = _Unreadable()
        yield image


def _start(path: Path) -> bytes:
    """The first bytes of a file, at least one."""
    with path.open("rb") as stream:
        start = stream.read(16)
    if not start:
        raise PictureError(
            path, "empty", "the file is empty (0 bytes). Restore it from its source."
        )
    return start


def _unknown(path: Path, start: bytes) -> PictureError:
    """The error for a file that no decoder recognizes."""
    signatures = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF")
    if start.startswith(signatures) and _expected_size(path) > path.stat().st_size:
        return _truncated(path)
    if start.startswith(signatures):
        reason = (
            f"begins like a picture but its header is damaged ({_size(path)}). Restore the file."
        )
        return PictureError(path, "damaged", reason)
    return PictureError(
        path,
        "not an image",
        "not an image: the content is none of PNG, JPEG, TIFF, BMP, WebP or DICOM. Remove the file "
        "or convert it.",
    )


def _header(path: Path, image: Any) -> Header:
    """`Header` of an opened image."""
    if image.mode == "unreadable":
        return _tiff_header(path)
    width, height = image.size
    form = "JPEG" if image.format == "MPO" else str(image.format)
    orientation = _orientation(path, image, form)
    if orientation >= 5 and form != "TIFF":  # Pillow has exchanged the sides of TIFF already
        width, height = height, width
    gray = image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")
    return Header(
        format=form,
        width=width,
        height=height,
        mode="gray" if gray else "rgb",
        pixels=_deep_png_mode(path) or image.mode if form == "PNG" else image.mode,
        orientation=orientation,
        icc=bool(image.info.get("icc_profile")),
        frames=_frames(image),
        synthetic=str(image.info.get("Synthetic", "")).lower() == "yes",
    )


def _frames(image: Any) -> int:
    """Pictures in the file; the previews in a camera's JPEG do not count."""
    try:
        return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, EOFError, KeyError):
        return 1  # a broken chain of pages shows when the first is loaded


def _orientation(path: Path, image: Any, form: str) -> int:
    """EXIF orientation, 1..8; found in PNG without decoding, wherever the chunk stands."""
    try:
        if form == "PNG":
            data = image.info.get("exif") or _png_exif(path)
            if not data:
                return 1
            exif = Image.Exif()
            exif.load(data)
        else:
            exif = image.getexif()
        value = exif.get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, KeyError, OSError, TypeError, zlib.error):
        return 1  # damaged EXIF is no reason to lose the picture
    return value if value in range(1, 9) else 1


def _refuse_bomb(path: Path, header: Header, max_pixels: int) -> None:
    """Refuse a picture by its header if decoding it could fill the memory."""
    if header.width * header.height > max_pixels:
        raise PictureError(
            path,
            "too large",
            f"the picture is {header.width} x {header.height}, more than {max_pixels} pixels; it "
            "was not decoded. Cut or shrink it, or allow it with --max-pixels.",
        )


def _load(path: Path, image: Any) -> None:
    """Decode; what Pillow says about a broken file becomes our error."""
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, zlib.error, EOFError, OverflowError) as error:
        text = str(error).lower()
        if any(
            word in text for word in ("truncated", "incomplete", "unexpected end", "not enough")
        ):
            raise _truncated(path) from None
        if _expected_size(path) > path.stat().st_size:
            raise _truncated(path) from None
        if "decoder" in text and "not available" in text:
            reason = "compressed in a way that Pillow was built without. Save it as PNG."
            raise PictureError(path, "no decoder", reason) from None
        reason = f"the picture data are damaged ({_size(path)}). Restore the file from its source."
        raise PictureError(path, "damaged", reason) from None


def _truncated(path: Path) -> PictureError:
    """The error for a file that ends too early; says how much there should be, if it is known."""
    have, expected = path.stat().st_size, _expected_size(path)
    where = _kilobytes(have)
    if expected > have:
        where = f"{where.removesuffix(' kB')} of {_kilobytes(expected)}"
    reason = f"truncated after {where}. Restore the file from its source."
    return PictureError(path, "truncated", reason)


def _expected_size(path: Path) -> int:
    """Bytes the whole file must have, 0 where the format does not say (JPEG, PNG)."""
    with path.open("rb") as stream:
        start = stream.read(16)
    if start[:4] == b"RIFF":
        return int.from_bytes(start[4:8], "little") + 8
    if start[:2] == b"BM":
        return int.from_bytes(start[2:6], "little")
    if start[:2] in (b"II", b"MM"):
        with contextlib.suppress(Exception), Image.open(path) as image:
            tags: Any = image.tag_v2  # type: ignore[attr-defined]
            starts, counts = tags.get(273) or tags.get(324), tags.get(279) or tags.get(325)
            return max(int(a) + int(b) for a, b in zip(starts, counts, strict=True))
    return 0


def _kilobytes(count: int) -> str:
    return f"{max(1, round(count / 1000))} kB"


def _size(path: Path) -> str:
    return _kilobytes(path.stat().st_size)


def _picture_of_pillow(image: Any, path: Path) -> Array:
    """Pixels of a loaded image: grey or RGB, 8 bit, 16 bit or float."""
    mode = image.mode
    if mode in ("P", "PA", "CMYK", "YCbCr", "RGBX"):
        return np.asarray(image.convert("RGB"))
    if mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    elif mode not in ("1", "L", "LA", "RGB", "RGBA", "I", "F") and not mode.startswith("I;16"):
        reason = f"pixels of mode {mode} are not read. Save the picture as grey or RGB."
        raise PictureError(path, "unsupported", reason)
    return np.asarray(image)


def _labels_of_pillow(image: Any, path: Path) -> Array:
    """Stored values of a loaded image; palette indices stay indices."""
    return np.asarray(image) if image.mode in ("P", "I") else _picture_of_pillow(image, path)


def _plain_type(array: Array, path: Path) -> Array:
    """uint8, uint16 or float32 with the same values."""
    if array.dtype in (np.uint8, np.float32):
        return array
    if array.dtype == np.uint16 or array.dtype == np.dtype(">u2"):
        return array.astype(np.uint16)
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    if array.dtype.kind in "iu" and array.size and np.abs(array.astype(np.float64)).max() > 2**24:
        reason = "32-bit values beyond 16 777 216 are not read. Save the picture in 16 bits."
        raise PictureError(path, "unsupported", reason)
    if array.dtype.kind in "iuf":
        return array.astype(np.float32)
    reason = f"values of type {array.dtype} are not read. Save the picture in 8 or 16 bits."
    raise PictureError(path, "unsupported", reason)


def _turned(array: Array, orientation: int) -> Array:
    """Undo the turn that EXIF describes; values 1..8 as in the EXIF standard."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _half(array: Array, part: Part) -> Array:
    """Left or right half of a side-by-side picture."""
    if part.half is None:
        return array
    width = array.shape[1]
    if width % 2:
        reason = f"the width is {width}; two pictures side by side need an even width."
        raise PictureError(part.path, "unsupported", reason)
    middle = width // 2
    return np.ascontiguousarray(array[:, :middle] if part.half == "left" else array[:, middle:])


# PNG


def _png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and length of each chunk; the stream then stands at the chunk's data."""
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        position = stream.tell()
        yield name, length
        stream.seek(position + length + 4)


def _verify_png(path: Path) -> None:
    """Check the sums and the end of a PNG file, which Pillow skips for the pixel data."""
    ended = False
    with path.open("rb") as stream:
        for name, length in _png_chunks(stream):
            data = stream.read(length)
            stored = stream.read(4)
            if len(stored) < 4:
                raise _truncated(path)
            if zlib.crc32(data, zlib.crc32(name)) != int.from_bytes(stored, "big"):
                raise PictureError(
                    path,
                    "damaged",
                    "a checksum in the file is wrong: bytes have changed since it was written. "
                    "Restore the file from its source.",
                )
            ended = ended or name == b"IEND"
    if not ended:
        raise _truncated(path)


def _png_exif(path: Path) -> bytes | None:
    with path.open("rb") as stream:
        for name, length in _png_chunks(stream):
            if name == b"eXIf":
                return b"Exif\0\0" + stream.read(length)
    return None


def _deep_png_mode(path: Path) -> str | None:
    """`RGB;16` and the like for PNG files that Pillow would cut down to 8 bits."""
    with path.open("rb") as stream:
        start = stream.read(26)
    if len(start) < 26 or start[24] != 16:
        return None
    return {2: "RGB;16", 4: "LA;16", 6: "RGBA;16"}.get(start[25])


def _read_deep_png(path: Path, pixels: str) -> Array:
    """Colour PNG of 16 bits: OpenCV is the one decoder here that keeps them.

    It accepts broken files, so this must come after `_verify_png`.
    """
    import cv2

    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        reason = f"the picture data are damaged ({_size(path)}). Restore the file from its source."
        raise PictureError(path, "damaged", reason)
    return np.asarray(array[..., 0] if pixels == "LA;16" else array[..., 2::-1])


# TIFF


def _deeper_than_pillow(image: Any, header: Header) -> bool:
    """Whether Pillow would cut the samples of this TIFF file down to 8 bits."""
    bits = image.tag_v2.get(258, (1,))
    bits = bits if isinstance(bits, tuple) else (bits,)
    return header.mode == "rgb" and max(bits) > 8


def _white_is_zero(image: Any) -> bool:
    return bool(image.tag_v2.get(262, 1) == 0)


def _tiff_header(path: Path) -> Header:
    """Header of a TIFF file that Pillow cannot hold."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            orientation = int(page.tags[274].value) if 274 in page.tags else 1
            width, height = page.imagewidth, page.imagelength
            return Header(
                format="TIFF",
                width=height if orientation >= 5 else width,
                height=width if orientation >= 5 else height,
                mode="gray" if page.samplesperpixel < 3 else "rgb",
                pixels=str(page.dtype),
                orientation=orientation if orientation in range(1, 9) else 1,
                icc=34675 in page.tags,
                frames=len(tiff.pages),
            )
    except Exception:  # tifffile has no common error for files that are broken
        reason = f"a TIFF file whose header is damaged ({_size(path)}). Restore the file."
        raise PictureError(path, "damaged", reason) from None


def _read_tiff(path: Path) -> Array:
    """First page of a TIFF file, channels last, as stored."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            ends = [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=0) > path.stat().st_size:
                raise _truncated(path)
            array = np.asarray(page.asarray())
            planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
            inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    except PictureError:
        raise
    except Exception as error:
        if "imagecodecs" in str(error):
            reason = "compressed in a way that is not read. Save it without compression or as PNG."
            raise PictureError(path, "no decoder", reason) from None
        reason = f"the picture data are damaged ({_size(path)}). Restore the file from its source."
        raise PictureError(path, "damaged", reason) from None
    if planar and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if inverted and array.dtype.kind == "u":
        array = np.iinfo(array.dtype).max - array
    return array


# DICOM: no value of a header may reach a message, so errors are written here from scratch


def _pydicom() -> Any:
    """pydicom, kept from quoting header values in warnings."""
    try:
        import pydicom
    except ImportError:
        raise DataError(
            "DICOM files need the optional extra, which is not installed. "
            "Install it with: pip install 'tfgan_med[dicom]'"
        ) from None
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")
    return pydicom


def _dicom_dataset(path: Path, pixels: bool) -> Any:
    """The data set of a file; without pixels only the header is read."""
    pydicom = _pydicom()
    try:
        _start(path)
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
        if int(dataset.Rows) > 0 and int(dataset.Columns) > 0:
            return dataset
    except PictureError:
        raise
    except AttributeError:
        reason = "a DICOM file without a picture (no rows and columns). Remove it from the folder."
        raise PictureError(path, "unsupported", reason) from None
    except pydicom.errors.InvalidDicomError:
        reason = "not an image: the name says DICOM, the content does not. Remove the file."
        raise PictureError(path, "not an image", reason) from None
    except Exception:
        pass
    reason = f"the DICOM header is damaged ({_size(path)}). Restore the file from its source."
    raise PictureError(path, "damaged", reason)


def _dicom_header(path: Path) -> Header:
    dataset = _dicom_dataset(path, pixels=False)
    samples = int(getattr(dataset, "SamplesPerPixel", 1))
    palette = str(getattr(dataset, "PhotometricInterpretation", "")) == "PALETTE COLOR"
    return Header(
        format="DICOM",
        width=int(dataset.Columns),
        height=int(dataset.Rows),
        mode="rgb" if samples == 3 or palette else "gray",
        pixels=f"{int(getattr(dataset, 'BitsStored', 8))} bits",
        frames=int(getattr(dataset, "NumberOfFrames", 1) or 1),
        synthetic=str(getattr(dataset, "SyntheticData", "")).upper() == "YES",
        burned_in=str(getattr(dataset, "BurnedInAnnotation", "")).upper() == "YES",
    )


def _dicom_pixels(path: Path) -> tuple[Any, Array]:
    """Data set and stored pixels, `(height, width)` or `(height, width, 3)`."""
    pydicom = _pydicom()
    dataset = _dicom_dataset(path, pixels=True)
    if int(getattr(dataset, "NumberOfFrames", 1) or 1) > 1:
        reason = "holds several frames; one picture per file is expected. Export the frames."
        raise PictureError(path, "unsupported", reason)
    if "PixelData" not in dataset:
        reason = "a DICOM file without pixel data. Remove it, or restore it from its source."
        raise PictureError(path, "unsupported", reason)
    try:
        return dataset, np.asarray(dataset.pixel_array)
    except Exception as error:
        syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
        missing = isinstance(error, (RuntimeError, NotImplementedError, ImportError))
        if (
            syntax is not None
            and syntax.is_compressed
            and missing
            and not _decodes(pydicom, syntax)
        ):
            reason = (
                "compressed in a way that needs a decoder which is not installed. "
                "Install it with: pip install 'tfgan_med[dicom]'"
            )
            raise PictureError(path, "no decoder", reason) from None
        reason = f"the pixel data are cut short or damaged ({_size(path)}). Restore the file."
        raise PictureError(path, "truncated", reason) from None


def _decodes(pydicom: Any, syntax: Any) -> bool:
    """Whether a decoder for a transfer syntax is installed."""
    try:
        return bool(pydicom.pixels.get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _dicom_picture(path: Path) -> Array:
    """Rescaled values, larger is brighter; colour as 8-bit RGB."""
    pydicom = _pydicom()
    dataset, stored = _dicom_pixels(path)
    photometric = str(getattr(dataset, "PhotometricInterpretation", "MONOCHROME2"))
    try:
        if photometric == "PALETTE COLOR":
            colors = np.asarray(pydicom.pixels.apply_color_lut(stored, dataset))
            return colors if colors.dtype == np.uint8 else (colors >> 8).astype(np.uint8)
        if stored.ndim == 3:
            return stored
        if photometric == "MONOCHROME1":
            low, high = _stored_range(dataset)
            stored = (low + high - stored.astype(np.int64)).astype(stored.dtype)
        values = np.asarray(pydicom.pixels.apply_modality_lut(stored, dataset))
    except Exception:
        reason = "the tables or the rescaling in the DICOM header are damaged. Restore the file."
        raise PictureError(path, "damaged", reason) from None
    as_stored = "ModalityLUTSequence" not in dataset and _scaling(dataset) == (1.0, 0.0)
    if as_stored and stored.dtype in (np.uint8, np.uint16):
        return stored
    return values.astype(np.float32)


def _dicom_labels(path: Path) -> Array:
    return _dicom_pixels(path)[1]


def _dicom_window(path: Path) -> tuple[float, float] | None:
    """Window of the header in the values of `_dicom_picture`."""
    dataset = _dicom_dataset(path, pixels=False)
    try:
        center, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
        if width < 1:
            return None
        low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
        if str(dataset.PhotometricInterpretation) == "MONOCHROME1":
            slope, intercept = _scaling(dataset)
            mirror = slope * sum(_stored_range(dataset)) + 2 * intercept
            low, high = mirror - high, mirror - low
    except (AttributeError, TypeError, ValueError, IndexError):
        return None
    return low, high


def _first(value: Any) -> float:
    """A number of a header that may hold several."""
    return float(
        value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value
    )


def _scaling(dataset: Any) -> tuple[float, float]:
    """Rescale slope and intercept."""
    slope, intercept = getattr(dataset, "RescaleSlope", 1), getattr(dataset, "RescaleIntercept", 0)
    return float(slope), float(intercept)


def _stored_range(dataset: Any) -> tuple[int, int]:
    """Least and greatest value that the stored bits can hold."""
    bits = int(dataset.BitsStored)
    if int(getattr(dataset, "PixelRepresentation", 0)):
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1
