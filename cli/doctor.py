"""`doctor`: what this machine has, what is wrong, and the cure."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import typer

from tfgan_med import files

from . import common

GIGABYTE = 1e9
LITTLE_DISK = 2.0  # GB; checkpoints of a run and decoded pictures need about as much


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    value: str
    status: Literal["ok", "note", "broken"] = "ok"
    cure: str = ""


def doctor(
    json: common.Json = False, quiet: common.Quiet = False, debug: common.Debug = False
) -> None:
    """Look at this machine: versions, devices, precision, memory, disk, pretrained weights.

    Opens no connection and changes nothing. Exit code 1 if something is broken; the report ends
    with what to do about it.

    Examples:

      tfgan-med doctor

      tfgan-med doctor --json
    """
    common.note("Looking at this machine; loading TensorFlow takes some seconds.", quiet)
    findings = []
    for finding in examine():
        findings.append(finding)
        common.emit(asdict(finding), _line(finding), json)
    cures = [f for f in findings if f.cure]
    if cures and not json:
        typer.echo("\nWhat to do:")
        for finding in cures:
            typer.echo(f"  {finding.name}: {finding.cure}")
    if any(finding.status == "broken" for finding in findings):
        common.note("Next: the cures above, then tfgan-med doctor again.", quiet)
        raise typer.Exit(1)
    common.note("Next: train on built-in pictures: tfgan-med train pix2pix", quiet)


def examine() -> Iterator[Finding]:
    """Every finding, the quick ones first."""
    yield _python()
    yield from _packages()
    yield from _tensorflow()
    yield _memory()
    yield from _folders()
    yield from _environment()
    yield from _weights()


def _line(finding: Finding) -> str:
    mark = {"ok": " ", "note": "-", "broken": "!"}[finding.status]
    return f"{mark} {finding.name:<24} {finding.value}"


# Versions -----------------------------------------------------------------------------------------


def _python() -> Finding:
    version = platform.python_version()
    where = f"{version} ({sys.executable}), {platform.platform()}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("python", where)
    cure = "install Python 3.11, 3.12 or 3.13 and make a new environment with it"
    return Finding("python", where, "broken", cure)


def _packages() -> Iterator[Finding]:
    """Every package we need, against the range we need, and the one that DICOM needs."""
    try:
        needed = importlib.metadata.requires("tfgan_med") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("tfgan-med", "not installed", "broken", "python -m pip install .")
        return
    yield Finding("tfgan-med", importlib.metadata.version("tfgan_med"))
    for line in needed:
        requirement, _, marker = line.partition(";")
        name = re.split(r"[^\w.-]", requirement.strip())[0]
        found = _version(name)
        if "extra ==" in marker:
            if name == "pydicom":
                yield Finding("pydicom", found or "not installed; only DICOM files need it")
        elif found is None:
            yield Finding(name, "not installed", "broken", _pip(requirement))
        elif not _within(found, requirement):
            wanted = requirement.strip()
            yield Finding(name, f"{found}, but we need {wanted}", "broken", _pip(requirement))
        else:
            yield Finding(name, found)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _within(version: str, requirement: str) -> bool:
    try:
        from packaging.requirements import Requirement  # comes with TensorFlow
    except ImportError:
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _pip(requirement: str) -> str:
    return f'python -m pip install "{requirement.strip()}"'


# Devices ------------------------------------------------------------------------------------------


def _tensorflow() -> Iterator[Finding]:
    """Devices and precisions as TensorFlow sees them, or why it cannot be imported."""
    cpu = f"{_cores()} cores, {', '.join(_cpu_features()) or platform.machine()}"
    yield Finding("cpu", cpu)
    try:
        import tensorflow as tf
    except Exception as error:  # a broken installation fails in many ways
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        value = f"cannot be imported: {type(error).__name__}: {reason}"
        cure = 'python -m pip install --force-reinstall "tensorflow>=2.20,<2.22"'
        yield Finding("import", f"tensorflow {value}", "broken", cure)
        return
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    yield _gpu_finding(details)
    yield from _precisions(details)


def _gpu_finding(details: list[dict[str, Any]]) -> Finding:
    if details:
        names = (
            f"{number}: {entry.get('device_name', 'unnamed')}"
            for number, entry in enumerate(details)
        )
        return Finding("gpu", ", ".join(names))
    driver = _nvidia_driver()
    if driver:
        value = f"{driver} is there, but TensorFlow cannot use it"
        return Finding("gpu", value, "note", 'python -m pip install "tensorflow[and-cuda]"')
    return Finding("gpu", "none: everything runs on the CPU")


def _nvidia_driver() -> str | None:
    """The name of a graphics card that the driver knows, whatever TensorFlow says."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        done = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ", ".join(done.stdout.split("\n")[:8]).strip(", ") or None


def _precisions(details: list[dict[str, Any]]) -> Iterator[Finding]:
    yield Finding("float32", "yes")
    if details:
        capability = min(entry.get("compute_capability", (0, 0)) for entry in details)
        half = "fast" if capability >= (7, 0) else "works, not faster than float32"
        brain = "fast" if capability >= (8, 0) else "works, not faster than float32"
    else:
        native = {"AVX512-BF16", "AMX-BF16"} & set(_cpu_features())
        half = "works, slow on a CPU"
        brain = (
            f"in hardware ({', '.join(sorted(native))})" if native else "works, slow on this CPU"
        )
    yield Finding("mixed_float16", half)
    yield Finding("mixed_bfloat16", brain)


CPU_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX512-BF16",
    "amx_tile": "AMX",
    "amx_bf16": "AMX-BF16",
}


def _cpu_features() -> list[str]:
    """Instruction sets that matter here, where the system lists them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    return [name for flag, name in CPU_FEATURES.items() if flag in present]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Memory and disk ----------------------------------------------------------------------------------


def _memory() -> Finding:
    total, available = _physical_memory(), _meminfo("MemAvailable")
    if total is None:
        return Finding("memory", "unknown on this system")
    limit = _container_limit()
    value = f"{total / GIGABYTE:.1f} GB"
    if available is not None:
        value += f", {available / GIGABYTE:.1f} GB free"
    if limit is not None and limit < total:
        value += f", this container may use {limit / GIGABYTE:.1f} GB"
    if min(total, limit or total) < 4 * GIGABYTE:
        cure = "train with small pictures: --set data.image_size=64 --set train.batch_size=1"
        return Finding("memory", value, "note", cure)
    return Finding("memory", value)


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _meminfo(key: str) -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{key}:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _container_limit() -> int | None:
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no control group, or "max"
        return None


def _folders() -> Iterator[Finding]:
    """Room and writability of the places we write to."""
    cure = "start tfgan-med in a folder you may write to, or name one with --out"
    yield _folder("runs", Path("runs").absolute(), cure)
    cache_cure = "name a folder you may write to in TFGAN_MED_CACHE"
    yield _folder("cache", files.cache_dir().absolute(), cache_cure)


def _folder(name: str, path: Path, cure: str) -> Finding:
    place = next(p for p in (path, *path.parents) if p.exists())  # as far as it is there
    if not _writable(place):
        return Finding(name, f"{path} cannot be written", "broken", cure)
    free = shutil.disk_usage(place).free / GIGABYTE
    value = f"{path}, {free:.1f} GB free"
    if free < LITTLE_DISK:
        return Finding(name, value, "note", f"free some space; {LITTLE_DISK:.0f} GB are enough")
    return Finding(name, value)


def _writable(folder: Path) -> bool:
    """Whether a file can be made there; asking for the permission alone is not reliable."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _environment() -> Iterable[Finding]:
    for name in ("TFGAN_MED_CACHE", "TFGAN_MED_WEIGHTS"):
        value = os.environ.get(name)
        if name == "TFGAN_MED_WEIGHTS" and value and not Path(value).expanduser().is_dir():
            cure = f"correct or unset {name}"
            yield Finding(name, f"{value} is no folder", "broken", cure)
        else:
            yield Finding(name, value or "not set")


# Weights ------------------------------------------------------------------------------------------


def _weights() -> Iterator[Finding]:
    """Pretrained networks: where they are, or what would be fetched if asked for."""
    try:
        from tfgan_med.networks import pretrained
    except ModuleNotFoundError as error:  # NumPy; the missing package is reported above
        yield Finding("weights", f"unknown without the package {error.name}", "note")
        return
    for name, weights in pretrained.REGISTRY.items():
        path = pretrained.find(name)
        size = weights.sources[0].size / 1e6
        absent = f"not here; `weights import {name} --download` would fetch {size:.3g} MB"
        yield Finding(f"weights {name}", str(path) if path else f"{absent}. {weights.about}")
