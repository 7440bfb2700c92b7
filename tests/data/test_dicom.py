"""DICOM: values as the header means them, and no word of the header or name anywhere else."""

from __future__ import annotations

import builtins
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tfgan_med.data import check, decode, opening
from tfgan_med.data.records import DataConfig, Part
from tfgan_med.errors import DataError

pydicom = pytest.importorskip("pydicom", reason="needs the extra [dicom]")

LIMIT = 100_000_000
STORED = (np.arange(64 * 48, dtype=np.uint16) % 4096).reshape(48, 64)

Array = npt.NDArray[Any]


def dicom(path: Path, stored: Array = STORED, name: str = "", **header: Any) -> Path:
    """Write a file; `header` adds or replaces elements."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    for element in ("PatientName", "PatientID", "InstitutionName", "StudyDescription"):
        setattr(dataset, element, name)
    dataset.Rows, dataset.Columns = (
        stored.shape[-3:-1] if stored.ndim == 3 and stored.shape[-1] == 3 else stored.shape[-2:]
    )
    dataset.SamplesPerPixel = 3 if stored.ndim == 3 and stored.shape[-1] == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if dataset.SamplesPerPixel == 3 else "MONOCHROME2"
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = 8 if stored.dtype.itemsize == 1 else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for element, value in header.items():
        setattr(dataset, element, value)
    dataset.PixelData = stored.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path, enforce_file_format=True)
    return path


def picture(path: Path) -> Array:
    return decode.read_picture(Part(path), LIMIT)


def test_ct_values_become_hounsfield_units(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-1024)
    array = picture(path)
    assert array.dtype == np.float32
    assert (array[..., 0] == STORED * 2.0 - 1024).all()


def test_plain_values_stay_as_stored(tmp_path: Path) -> None:
    assert (picture(dicom(tmp_path / "a.dcm"))[..., 0] == STORED).all()
    assert picture(tmp_path / "a.dcm").dtype == np.uint16
    small = STORED.astype(np.uint8)
    assert (picture(dicom(tmp_path / "b.dcm", small))[..., 0] == small).all()
    assert (decode.read_labels(Part(tmp_path / "b.dcm"), LIMIT) == small).all()


@pytest.mark.parametrize("signed", [False, True])
def test_a_monochrome1_twin_is_the_same_picture_with_the_same_window(
    tmp_path: Path, signed: bool
) -> None:
    stored = STORED.astype(np.int16) - 2048 if signed else STORED
    mirrored = (-1 if signed else 4095) - stored
    scale: dict[str, Any] = {"RescaleSlope": 2, "RescaleIntercept": -100}
    plain = dicom(tmp_path / "a.dcm", stored, WindowCenter=300, WindowWidth=101, **scale)
    mirror = (
        -2 if signed else 2 * 4095
    ) + 2 * -100  # a value v of one file is mirror - v of the other
    center = mirror - 300 + 1  # the window 250..350 lies at mirror - 350..mirror - 250
    twin = dicom(
        tmp_path / "b.dcm",
        mirrored.astype(stored.dtype),
        PhotometricInterpretation="MONOCHROME1",
        WindowCenter=center,
        WindowWidth=101,
        **scale,
    )
    assert (picture(plain) == picture(twin)).all()
    assert decode.default_window(Part(plain)) == pytest.approx((249.5, 349.5))
    assert decode.default_window(Part(twin)) == pytest.approx((249.5, 349.5))


def test_color_is_read_and_files_without_suffix_are_found(tmp_path: Path) -> None:
    color = np.dstack([STORED, STORED.T.reshape(48, 64), STORED]).astype(np.uint8)
    dicom(tmp_path / "1.2.840.113", color)
    dicom(tmp_path / "1.2.840.114", STORED.astype(np.uint8))
    records = opening.open_set(DataConfig(path=str(tmp_path))).records
    assert len(records) == 2
    assert (picture(tmp_path / "1.2.840.113") == color).all()
    assert decode.picture_mode(Part(tmp_path / "1.2.840.113")) == "rgb"
    assert decode.picture_size(Part(tmp_path / "1.2.840.113")) == (64, 48)


def test_several_frames_are_refused(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", np.stack([STORED, STORED]), NumberOfFrames=2)
    with pytest.raises(decode.PictureError, match="several frames") as caught:
        picture(path)
    assert caught.value.kind == "unsupported"


def test_a_huge_file_is_refused_by_its_header(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", Rows=30000, Columns=30000)
    with pytest.raises(decode.PictureError, match="30000 x 30000") as caught:
        picture(path)
    assert caught.value.kind == "too large"


def test_cut_pixels_are_told(tmp_path: Path, planted: str) -> None:
    path = dicom(tmp_path / f"{planted}.dcm", name=planted)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(decode.PictureError) as caught:
        picture(path)
    assert caught.value.kind == "truncated"
    assert planted not in str(caught.value)


def test_compression_without_decoder_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    dicom(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(40)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    decoder = pydicom.pixels.get_decoder(JPEG2000Lossless)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(decode.PictureError, match=r"tfgan_med\[dicom\]") as caught:
        picture(tmp_path / "a.dcm")
    assert caught.value.kind == "no decoder"


def test_without_pydicom_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dicom(tmp_path / "a.dcm")
    real = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "pydicom":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"pip install 'tfgan_med\[dicom\]'"):
        picture(path)


def test_a_text_named_dicom_is_no_image(tmp_path: Path, planted: str) -> None:
    path = tmp_path / f"{planted}.dcm"
    path.write_text("not DICOM")
    with pytest.raises(decode.PictureError) as caught:
        picture(path)
    assert caught.value.kind == "not an image"
    assert planted not in str(caught.value)


def test_no_word_of_header_or_name_reaches_report_logs_or_stderr(
    tmp_path: Path,
    planted: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "data"
    generator = np.random.default_rng(0)
    for number in range(4):
        stored = generator.integers(0, 4096, (48, 64)).astype(np.uint16)
        wrong: dict[str, Any] = {"StudyDate": planted, "PatientAge": planted} if number == 0 else {}
        burned = "YES" if number == 1 else "NO"
        path = root / "images" / f"{planted}-{number}.dcm"
        dicom(path, stored, planted, BurnedInAnnotation=burned, **wrong)
        if number < 3:  # the last has no mask
            mask = np.where(stored > 2000, 255, 7 if number == 2 else 0).astype(np.uint8)
            (root / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(root / "masks" / f"{planted}-{number}.png")
    (root / "masks" / f"{planted}-lone.png").write_bytes(b"no picture")
    (root / "images" / f"{planted}-2.dcm").write_bytes(path.read_bytes()[:-500])
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        report = check.check(DataConfig(path=str(root)))
    told = [*map(str, report.errors), *map(str, report.warnings), str(report.as_json())]
    streams = capsys.readouterr()
    told += [caplog.text, streams.out, streams.err, *(str(w.message) for w in warned)]
    assert planted not in "\n".join(told)
    kinds = [finding.kind for finding in report.errors]
    assert kinds.count("cannot be used") == 2  # without mask; without image
    assert "truncated" in kinds
    assert "burned-in text" in [finding.kind for finding in report.warnings]
    assert report.items == 2
