"""Names without a registry: what a file is called is what users type."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from tfgan_med.errors import UserError

ClassT = TypeVar("ClassT")


def available(package: str | ModuleType) -> list[str]:
    """Names of the files of a package, sorted; nothing but the package itself is imported.

    `base` and names that begin with an underscore are not on offer.
    """
    spec = importlib.util.find_spec(_dotted(package))
    folders = spec.submodule_search_locations if spec else None
    found = (module.name for module in pkgutil.iter_modules(folders or []))
    return sorted(name for name in found if name != "base" and not name.startswith("_"))


def summary(package: str | ModuleType, name: str) -> str:
    """First line of a file's docstring, read without running the file."""
    spec = importlib.util.find_spec(f"{_dotted(package)}.{name}")
    if spec is None or spec.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    return text.partition("\n")[0] if text else ""


def load_class(
    package: str | ModuleType, name: str, base: type[ClassT], suffix: str = ""
) -> type[ClassT]:
    """The class spelled like its file: `stylegan2_ada` holds `StyleGAN2ADA`.

    Args:
        package: the package or its dotted name, e.g. `tfgan_med.models`.
        name: file name without `.py`, as the user typed it.
        base: class that the result must derive from.
        suffix: ending of a companion class; `Config` gives `StyleGAN2ADAConfig`.
    Raises:
        UserError: if no file has this name; the message lists the names there are.
        TypeError: if the file breaks the convention, a mistake of its author.
    """
    if name not in available(package):
        kind = _dotted(package).rpartition(".")[2].removesuffix("s")
        raise UserError(unknown(name, kind, available(package)))
    module = importlib.import_module(f"{_dotted(package)}.{name}")
    wanted = (name.replace("_", "") + suffix).lower()
    for spelled, value in vars(module).items():
        if spelled.lower() == wanted and isinstance(value, type) and issubclass(value, base):
            return value
    raise TypeError(
        f"{module.__name__} needs a {base.__name__} whose name in lower case is {wanted}"
    )


def unknown(name: str, kind: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist: the nearest one, then all there are."""
    names = list(known)
    near = nearest(name, names)
    hint = f" Did you mean {near}?" if near else ""
    return f"{name}: unknown {kind}.{hint} Known: {', '.join(names) or 'none'}."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, or None if none is close."""
    by_lower: dict[str, str] = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def _dotted(package: str | ModuleType) -> str:
    return package if isinstance(package, str) else package.__name__
