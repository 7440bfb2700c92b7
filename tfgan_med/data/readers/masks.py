"""Masks without pictures: `masks/`, `masks-<name>/`, `instances/` or `labels/`, no `images/`."""

from __future__ import annotations

from pathlib import Path

from tfgan_med.data import listing
from tfgan_med.data.readers import paired
from tfgan_med.data.records import DataConfig, ImageSet


def matches(root: Path) -> bool:
    """Whether there are folders of masks and none of images."""
    return root.is_dir() and not paired.matches(root) and _main_role(root) is not None


def read(root: Path, config: DataConfig) -> ImageSet:
    """Read the masks; further kinds of masks are matched to them by name."""
    return paired.read_roles(root, _main_role(root) or "masks", "masks")


def _main_role(root: Path) -> str | None:
    """The role that items are named after: masks before instances before labels."""
    bases = [root, *(listing.split_folders(root) or {}).values()]
    roles = {listing.role_of(folder.name) for base in bases for folder in listing.folders(base)}
    named = sorted(role for role in roles if role and role.startswith("masks-"))
    return next((r for r in ("masks", *named, "instances", "labels") if r in roles), None)
