"""Shapes of generated masks against real ones: masks read from folders, of pictures or alone."""

from __future__ import annotations

from dataclasses import replace

from tfgan_med.data import encoding, fitting
from tfgan_med.data.opening import open_set
from tfgan_med.data.records import DataConfig, Part
from tfgan_med.errors import DataError, UserError
from tfgan_med.evaluation.pictures import Pictures, Policy, ahead, open_pictures
from tfgan_med.metrics import mask_shapes
from tfgan_med.metrics.base import Measured, Progress, Result
from tfgan_med.metrics.mask_shapes import MaskShape, MaskShapes


def compare(
    real: str,
    fake: str,
    *,
    role: str = "auto",
    split: str = "auto",
    settings: MaskShapes | None = None,
    resize: int | None = None,
    fit: Policy = "crop",
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Result, ...]:
    """Compare the shapes of the masks of two sets.

    Args:
        real, fake: folders, tables or built-in sets with masks, beside pictures or alone.
        role: `masks`, `masks-<name>` or `instances` (numbered objects, whose union counts); `auto`
            takes the first that the real set has. A set without it gives its pictures, if they
            are masks.
        split: of the real set.
        settings: of the metric.
        resize, fit: bring all masks to squares of this side first, nearest neighbor.
        seed: of halves, resamples and permutations.
        progress: called with the name of the set, masks done and all.
    Raises:
        UserError: label maps, which have more than one class, or nothing to compare.
        DataError: a file that is no mask.
    """
    settings = settings or MaskShapes()
    real_set = _open(real, split, role)
    fake_set = _open(fake, "all", real_set.role)
    ours, theirs = (
        _describe(pictures, settings, resize, fit, progress) for pictures in (real_set, fake_set)
    )
    try:
        measured = mask_shapes.compare(ours, theirs, settings=settings, seed=seed)
    except ValueError as error:
        raise UserError(str(error)) from None
    return tuple(_result(one, real_set, fake_set, resize, fit, seed) for one in measured)


def why_not(real: str, fake: str) -> str:
    """Why two sets have no masks to compare; empty if they have."""
    for path in (real, fake):
        roles = open_set(DataConfig(path=path)).roles
        if _first_role(roles) is None:
            return f"{path} has no masks, but {', '.join(roles) or 'nothing in common'}."
    return ""


# Reading ------------------------------------------------------------------------------------------


def _open(path: str, split: str, role: str) -> Pictures:
    """The masks of a set; pictures where it has none, for a flat folder of masks."""
    roles = open_set(DataConfig(path=path)).roles
    if role == "auto":
        role = _first_role(roles) or "images"
    if role == "labels" or (role not in roles and "images" not in roles):
        raise UserError(
            f"{path}: has {', '.join(roles)}; shapes are measured on masks of one class. Choose "
            "a --role with masks, or compare label maps with `tfgan-med evaluate labels`."
        )
    return open_pictures(path, split, role if role in roles else "images")


def _first_role(roles: tuple[str, ...]) -> str | None:
    named = sorted(role for role in roles if role.startswith("masks-"))
    return next((role for role in ("masks", *named, "instances") if role in roles), None)


def _describe(
    pictures: Pictures, settings: MaskShapes, resize: int | None, fit: Policy, progress: Progress
) -> list[MaskShape]:
    role = "instances" if pictures.role == "instances" else "masks"
    most = DataConfig().max_pixels

    def describe(part: Part) -> MaskShape:
        mask = encoding.read(part, role, most)
        if resize is not None:
            mask = fitting.fit(mask, resize, fit, nearest=True)[0][0]
        return mask_shapes.describe(mask[..., 0], neighbors=settings.neighbors)

    found = []
    try:
        for done, one in enumerate(ahead(describe, pictures.parts), 1):
            found.append(one)
            progress(pictures.name, done, len(pictures))
    except DataError as error:
        if pictures.role != "images":
            raise
        raise DataError(
            f"{pictures.name}: has no masks/, and its pictures are no masks: {error}"
        ) from None
    return found


def _result(
    measured: Measured, real: Pictures, fake: Pictures, resize: int | None, fit: Policy, seed: int
) -> Result:
    sizes = set(real.sizes) | set(fake.sizes)
    if resize is not None:
        settings = measured.settings | {"resize": f"{resize} ({fit})"}
        measured = replace(measured, settings=settings)
    elif len(sizes) > 1:
        note = (
            f"Masks of {len(sizes)} different sizes: areas compare, but pieces and compactness "
            f"depend on the resolution. Add --resize {min(min(size) for size in sizes)}."
        )
        measured = replace(measured, notes=(*measured.notes, note))
    return Result.of(
        measured,
        len(real),
        len(fake),
        protocol=f"masks ({real.role})",
        extractor="",
        weights_sha256="",
        dimension=0,
        image_size=real.sizes[0] if resize is None else (resize, resize),
        color="masks",
        value_range=(0.0, 255.0),
        real=real.title,
        fake=fake.title,
        seed=seed,
    )
