"""From a data set to a folder in another tool's layout, whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tfgan_med
from tfgan_med import files
from tfgan_med.data.export import coco, imagefolder, nnunet, yolo
from tfgan_med.data.export.items import Item, Options, Source, copy_provenance, open_source
from tfgan_med.errors import UserError

Write = Callable[[Source, Path, Options], Iterator[tuple[Item, Path]]]

FORMATS: dict[str, Write] = {
    "imagefolder": imagefolder.write,
    "coco": coco.write,
    "yolo": yolo.write,
    "nnunet": nnunet.write,
}
MARK = "export.json"
"""File by which an export is known; only such folders are ever replaced."""


@dataclass(frozen=True)
class Exported:
    """What was made.

    Attributes:
        folder: where.
        pictures: how many; `unchanged` of them are the same bytes.
        synthetic: whether a network made them.
        notices: what is different from the source.
    """

    folder: Path
    pictures: int
    unchanged: int
    synthetic: bool
    notices: tuple[str, ...]


def export_set(
    path: str,
    form: str,
    out: Path,
    options: Options | None = None,
    *,
    title: str | None = None,
    replace: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write a data set in the layout of other tools; the source is only read.

    Beside the format's own files: `files.csv` (which file came from which), `export.json`, and
    `provenance.json` where the source has one.

    Args:
        path: folder, table or built-in set.
        form: one of `FORMATS`.
        out: the folder to make.
        options: of the format.
        title: of the set; by default the name of its folder.
        replace: an older export in `out` goes.
        progress: called with pictures done and all.
    Raises:
        UserError: an unknown format, a folder in the way, nothing to mark objects.
        DataError: a set with faults, or a picture that cannot be handed on.
    """
    if form not in FORMATS:
        raise UserError(f"--format is {form!r}; one of {', '.join(FORMATS)} for data sets.")
    source = open_source(path, title)
    root = source.images.root
    with replacing_export(out, root if root.is_dir() else root.parent, replace) as folder:
        unchanged = count = 0
        with (folder / "files.csv").open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(("file", "source", "split", "class", "unchanged"))
            for item, made in FORMATS[form](source, folder, options or Options()):
                same = _same_bytes(item, made)
                unchanged, count = unchanged + same, count + 1
                record = item.record
                place = made.relative_to(folder).as_posix()
                table.writerow(
                    (place, record.id, record.split or "", record.label or "", int(same))
                )
                progress(count, len(source.items))
        copy_provenance(source, folder)
        files.write_json(folder / MARK, facts(form, source.synthetic, source=source.title))
    return Exported(out, count, unchanged, source.synthetic, tuple(source.notices))


def facts(form: str, synthetic: bool, **more: Any) -> dict[str, Any]:
    """What `export.json` says."""
    return {"format": form, "synthetic": synthetic, "tfgan_med": tfgan_med.__version__, **more}


@contextmanager
def replacing_export(out: Path, source: Path, replace: bool) -> Iterator[Path]:
    """A temporary folder that becomes `out` when it is whole.

    Raises:
        UserError: something else than an older export is in the way, an older one without
            `replace`, or `out` lies in the source or around it.
    """
    require_free(out, source, replace)
    with files.new_folder(out) as folder:
        yield folder
        if replace:
            files.remove_folder(out)


def require_free(out: Path, source: Path, replace: bool) -> None:
    """Whether an export can be made here; to be asked before long work."""
    there, whole = out.resolve(), source.resolve()
    around = there == whole or there in whole.parents
    if around or (whole in there.parents and not _is_run(whole)):
        raise UserError(
            f"{out}: lies in the source {source} or around it, which stays as it is. Name another "
            "folder with --out."
        )
    if not out.exists():
        return
    if not replace:
        raise UserError(
            f"{out}: exists. Name another folder with --out, or replace it with --force."
        )
    if not (out / MARK).is_file():
        raise UserError(
            f"{out}: is no export (it has no {MARK}), so --force does not replace it. Name another "
            "folder with --out."
        )


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def _same_bytes(item: Item, made: Path) -> bool:
    original = item.picture.path
    if original.stat().st_size != made.stat().st_size:
        return False
    return files.sha256_of(original) == files.sha256_of(made)
