"""Settings blocks: typed, frozen, unknown keys are errors; YAML files and `--set`.

Settings are data: a YAML file holds text, numbers, lists and mappings and can name no code. It
is read by the rules of YAML 1.2, so `1e-4` is a number while `no`, `on` and `12:30` stay the
text they look like.
"""

from __future__ import annotations

import difflib
import os
import re
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from tfgan_med.errors import UserError

MAX_BYTES = 1_000_000
MAX_ALIASES = 64
MAX_DEPTH = 30  # PyYAML's time grows with the square of the depth
MAX_VALUES = 100_000  # after expansion: 64 nested aliases could stand for 2^32 values


class Config(BaseModel):
    """A block of settings; a field's docstring is its comment in `tfgan-med describe`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


ConfigT = TypeVar("ConfigT", bound=Config)
Values = dict[str, Any]

_LOCATION = "a path, or `kind:name`"
Location = Annotated[str, _LOCATION]
"""Text that is a path unless it begins with `kind:`, e.g. `builtin:histology`."""


# Reading ------------------------------------------------------------------------------------------


def load_yaml(path: Path) -> Values:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        UserError: if the file cannot be read, is over 1 MB, is not one mapping, or has a double
            key, a tag, or more than 64 aliases.
    """
    try:
        data = path.open("rb").read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Name a readable settings file.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: byte {error.start} is not UTF-8. Save the settings file as UTF-8 text."
        ) from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: over 1 MB. A settings file has a few kB; is this the right one?")
    values = parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: holds {_show(values)}. A settings file is made of lines `key: value`."
        )
    return values


def parse_yaml(text: str, origin: str) -> Any:
    """The value of one YAML document by the rules above; `origin` begins every message."""
    try:
        _refuse_what_settings_never_hold(text, origin)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_expansion(node, origin)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = error.problem or ""
        if problem.startswith("but "):  # the first half of the sentence is in the context
            problem = f"{error.context} {problem}"
        raise UserError(f"{origin}{line}: {problem}. Correct the YAML at this place.") from None
    except yaml.YAMLError as error:  # control characters
        reason = str(error).splitlines()[0]
        raise UserError(f"{origin}: {reason}. Save it as plain UTF-8 text.") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain values of YAML 1.2's core schema and unique keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As in PyYAML, but a key that occurs twice is an error, not a silent replacement."""
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word or a number", key_node.start_mark
                )
            key = self.construct_object(key_node)
            if key in values:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} occurs twice", key_node.start_mark
                )
            values[key] = self.construct_object(value_node, deep=True)
        return values

    def construct_core_number(self, node: Any) -> int | float:
        """Decimal, `0o17`, `0x1F`, `1e-4`, `.inf` or `.nan`; a leading zero is not octal."""
        text = self.construct_scalar(node)
        try:
            if text[:2] in ("0o", "0x"):
                return int(text, 0)
            return int(text) if re.fullmatch("[-+]?[0-9]+", text) else float(_python_float(text))
        except ValueError:  # thousands of digits
            raise yaml.constructor.ConstructorError(
                None, None, "a number with too many digits", node.start_mark
            ) from None


def _python_float(text: str) -> str:
    """YAML writes `.inf` and `.nan` where Python writes `inf` and `nan`."""
    return re.sub(r"\.(?=[iInN])", "", text)


_CORE_NUMBER = re.compile(
    r"[-+]?[0-9]+$|0o[0-7]+$|0x[0-9a-fA-F]+$"
    r"|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_NUMBER_TAG = "tag:tfgan-med:number"
_CORE = (
    ("tag:yaml.org,2002:null", re.compile("~$|null$|Null$|NULL$|$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    (_NUMBER_TAG, _CORE_NUMBER, list("-+.0123456789")),
)
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
_Loader.add_constructor(_NUMBER_TAG, _Loader.construct_core_number)


def _refuse_what_settings_never_hold(text: str, origin: str) -> None:
    aliases = depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        tag = getattr(event, "tag", None)
        if tag is not None:
            line = event.start_mark.line + 1  # type: ignore[union-attr]
            raise UserError(
                f"{origin}:{line}: the tag {tag} is not read. Settings are plain values; remove it."
            )
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"{origin}: nested too deeply. Settings need two or three levels.")
    if aliases > MAX_ALIASES:
        raise UserError(
            f"{origin}: {aliases} aliases (`*name`), at most {MAX_ALIASES} are read. "
            "Write the values out."
        )


def _refuse_expansion(root: Any, origin: str) -> None:
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MAX_VALUES  # in case the node contains itself
            sizes[id(node)] = 1 + sum(size(child) for child in _children(node))
        return sizes[id(node)]

    if size(root) > MAX_VALUES:
        raise UserError(
            f"{origin}: more than {MAX_VALUES} values once aliases are expanded. "
            "Write the values out."
        )


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


# Resolving ----------------------------------------------------------------------------------------


def read_layer(cls: type[Config], path: Path) -> tuple[str, Values]:
    """A settings file as a layer for `resolve`: its name and its values.

    Relative paths in the file become absolute: they are relative to the file that names them.
    """
    folder = path.absolute().parent
    return str(path), map_paths(cls, load_yaml(path), lambda text: _absolute(text, folder))


def resolve(
    cls: type[ConfigT],
    layers: Sequence[tuple[str, Values]],
    changes: Sequence[str] = (),
    name: str = "",
) -> ConfigT:
    """Settings from defaults, then layers, then changes; what comes later wins, key by key.

    Args:
        cls: the block to fill; its defaults come first.
        layers: origin (for messages) and nested values, e.g. from `read_layer`.
        changes: `--set` texts such as `train.batch_size=4`; the value is read as YAML, paths are
            relative to the working folder.
        name: what `tfgan-med describe` calls these settings; it ends the message.
    Raises:
        UserError: with every fault, one per line.
    """
    sources = [*layers, *(_layer_of_change(cls, change) for change in changes)]
    values: Values = {}
    for _, layer in sources:
        values = merge(values, _without_empty_blocks(cls, layer))
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        faults = _faults(cls, error, values, sources)
    pointer = f"All settings: tfgan-med describe {name}." if name else ""
    raise UserError(("\n" if len(faults) > 1 else " ").join([*faults, pointer]).strip())


def _layer_of_change(cls: type[Config], change: str) -> tuple[str, Values]:
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(
            f"--set {change}: expected KEY=VALUE. Write for example --set train.batch_size=4."
        )
    value = parse_yaml(text, f"--set {key}")
    for part in reversed(parts):
        value = {part: value}
    return f"--set {key}", map_paths(cls, value, lambda text: _absolute(text, Path.cwd()))


def merge(old: Values, new: Values) -> Values:
    """Nested values with those of `new`, key by key."""
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _without_empty_blocks(cls: type[Config], values: Values) -> Values:
    """Drop blocks of which a file names only the title, every line below being a comment."""
    kept = {}
    for key, value in values.items():
        block = _block(cls.model_fields.get(key))
        if block is not None and value is None:
            continue
        kept[key] = _without_empty_blocks(block, value) if block and _is_dict(value) else value
    return kept


def map_paths(cls: type[Config], values: Values, change: Callable[[str], str]) -> Values:
    """`values` with `change` applied to the text of every field that holds a path."""
    mapped = dict(values)
    for key, value in values.items():
        field = cls.model_fields.get(key)
        block = _block(field)
        if block and _is_dict(value):
            mapped[key] = map_paths(block, value, change)
        elif field and _holds_path(field) and value not in _words(field.annotation):
            mapped[key] = _map_texts(value, change)
        elif field and _holds_location(field):
            mapped[key] = _map_texts(value, lambda text: text if _is_named(text) else change(text))
    return mapped


def _is_named(text: str) -> bool:
    """Whether a location is no path, as `builtin:histology`."""
    return re.match(r"[\w+.-]{2,}:", text) is not None


def _holds_location(field: FieldInfo) -> bool:
    """Whether a field is a `Location`, or a sequence of them."""
    inner = typing.get_args(field.annotation)
    return _LOCATION in field.metadata or any(
        _LOCATION in getattr(member, "__metadata__", ()) for member in inner
    )


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _map_texts(item, change) for key, item in value.items()}
    return value


def _absolute(text: str, folder: Path) -> str:
    return os.path.normpath(folder / Path(text).expanduser())


def _block(field: FieldInfo | None) -> type[Config] | None:
    annotation: Any = field.annotation if field else None
    is_block = isinstance(annotation, type) and issubclass(annotation, Config)
    return annotation if is_block else None


def _holds_path(field: FieldInfo) -> bool:
    def mentions(annotation: Any) -> bool:
        return annotation is Path or any(map(mentions, typing.get_args(annotation)))

    return mentions(field.annotation)


def _words(annotation: Any) -> list[Any]:
    """Literals that a field takes beside a path, as `none` in `Path | Literal["none"]`."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [word for member in typing.get_args(annotation) for word in _words(member)]


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


# Faults -------------------------------------------------------------------------------------------


def _faults(
    cls: type[Config],
    error: ValidationError,
    values: Values,
    sources: Sequence[tuple[str, Values]],
) -> list[str]:
    """One sentence per setting at fault; the members of a union are joined by "or"."""
    expected: dict[str, list[str]] = {}
    received: dict[str, str] = {}
    faults: dict[str, str] = {}
    for item in error.errors(include_url=False):
        key = _dotted(item["loc"], values)
        if item["type"] == "extra_forbidden":
            near = _nearest_key(key, list(_keys(cls)))
            faults[key] = f"{key}: unknown setting." + (f" Did you mean {near}?" if near else "")
        elif item["type"] in ("value_error", "assertion_error"):
            message = item["msg"].partition(", ")[2]
            faults[key] = f"{key}: {message}" if key else message
        elif item["loc"][-1:] == ("[key]",):
            faults[key] = f"{key}: the key {item['input']} is no text; write it in quotes."
        elif item["type"] == "missing" and isinstance(item["loc"][-1], int):
            faults[key] = f"{key}: not given. The list needs more values."
        elif item["type"] == "missing":
            faults[key] = f"{key}: not given. Set it in the file or with --set {key}=VALUE."
        else:
            expected.setdefault(key, []).append(_expectation(item))
            origin = _origin(key, sources)
            received[key] = _show(item["input"]) + (f" (from {origin})" if origin else "")
            wanted = " or ".join(dict.fromkeys(expected[key]))
            faults[key] = f"{key}: received {received[key]}, expected {wanted}."
    return list(faults.values())


def _dotted(location: tuple[int | str, ...], values: Any) -> str:
    """The key as users write it; the names pydantic gives to members of a union are left out."""
    dotted = ""
    for part in location:
        if isinstance(values, dict):
            dotted += f".{part}" if dotted else str(part)
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int):
            dotted += f"[{part}]"
            values = values[part] if part < len(values) else None
    return dotted


def _expectation(item: Any) -> str:
    kind = item["type"]
    if kind == "string_type":
        return f'text; write it in quotes: "{_show(item["input"])}"'
    if kind == "model_type":
        return "a block of settings, `key: value`"
    words = {
        "int_parsing": "an integer",
        "int_type": "an integer",
        "int_from_float": "an integer",
        "float_parsing": "a number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_parsing": "true or false",
        "bool_type": "true or false",
        "none_required": "null",
        "path_type": "a path",
        "greater_than": "a value greater than {gt}",
        "greater_than_equal": "a value of at least {ge}",
        "less_than": "a value less than {lt}",
        "less_than_equal": "a value of at most {le}",
        "multiple_of": "a multiple of {multiple_of}",
        "literal_error": "{expected}",
        "enum": "{expected}",
        "list_type": "a list, `[a, b]`",
        "tuple_type": "a list, `[a, b]`",
        "dict_type": "a mapping, `{{key: value}}`",
        "missing_argument": "a value",
    }
    if kind in words:
        return words[kind].format(**item.get("ctx", {}))
    message: str = item["msg"]
    return re.sub("^Input should (be|have) ", "", message)


def _origin(key: str, sources: Sequence[tuple[str, Values]]) -> str:
    for origin, layer in reversed(sources):
        value: Any = layer
        for part in key.partition("[")[0].split("."):
            value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
            return origin
    return ""


_ABSENT = object()


def _nearest_key(key: str, known: Sequence[str]) -> str | None:
    """Nearest dotted key, or the key that has the right name in another block."""
    last = key.rpartition(".")[2]
    elsewhere = [name for name in known if name.rpartition(".")[2].lower() == last.lower()]
    if len(elsewhere) == 1:
        return elsewhere[0]
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(key.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def _show(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else _scalar(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Printing -----------------------------------------------------------------------------------------


def as_yaml(config: Config, commented: bool = False, relative_to: Path | None = None) -> str:
    """All settings as YAML that `load_yaml` reads back.

    Args:
        config: the settings.
        commented: put the docstring of each field above it, wrapped, with choices and ranges.
        relative_to: folder the text will be written to; paths become relative to it, so that
            folder and data can be moved together.
    """
    values = config.model_dump(mode="json")
    if relative_to is not None:
        folder = relative_to.absolute()
        values = map_paths(type(config), values, lambda text: relative(text, folder))
    return "\n".join(_lines(type(config), values, commented, indent="")) + "\n"


def relative(text: str, folder: Path) -> str:
    """A path as seen from a folder."""
    try:
        return Path(os.path.relpath(text, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return text


def _lines(cls: type[Config], values: Values, commented: bool, indent: str) -> Iterator[str]:
    for key, value in values.items():
        field = cls.model_fields[key]
        block = _block(field)
        if commented:
            about = field.description or (block and block.__doc__) or ""
            yield from _comment(about, indent)
            yield from _comment(_limits(field), indent)
        if block and value:
            yield f"{indent}{key}:"
            yield from _lines(block, value, commented, indent + "  ")
        else:
            yield f"{indent}{key}: {_scalar(value)}"
        if block and not indent:
            yield ""


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        width=96,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_on_hyphens=False,
    )


def _limits(field: FieldInfo) -> str:
    """Choices and range of a field in words, from its type."""
    choices = list(_choices(field.annotation))
    if choices:
        return f"One of: {', '.join(map(_scalar, choices))}."
    words = {
        "ge": "at least {}",
        "gt": "greater than {}",
        "le": "at most {}",
        "lt": "less than {}",
        "multiple_of": "a multiple of {}",
    }
    bounds = [
        word.format(getattr(constraint, name))
        for constraint in field.metadata
        for name, word in words.items()
        if getattr(constraint, name, None) is not None
    ]
    return f"Range: {', '.join(bounds)}." if bounds else ""


def _choices(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        yield from typing.get_args(annotation)
    elif typing.get_origin(annotation) in (typing.Union, type(int | None)):
        members = typing.get_args(annotation)
        if all(member is type(None) or list(_choices(member)) for member in members):
            for member in members:
                yield from [None] if member is type(None) else _choices(member)


class _Dumper(yaml.SafeDumper):
    """Quotes text that a reader of YAML 1.1 or 1.2 would take for something else."""


_Dumper.add_implicit_resolver(_NUMBER_TAG, _CORE_NUMBER, list("-+.0123456789"))


def _scalar(value: Any) -> str:
    """One value on one line."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        width=float("inf"),
        allow_unicode=True,
        sort_keys=False,
    )
    return text.removesuffix("\n").removesuffix("\n...")


# Comparing ----------------------------------------------------------------------------------------


def differences(old: Config, new: Config) -> list[str]:
    """Dotted keys whose values differ, in the order of the fields."""
    before = dict(_flat(old.model_dump(), type(old)))
    after = dict(_flat(new.model_dump(), type(new)))
    keys = dict.fromkeys([*before, *after])
    return [k for k in keys if before.get(k, _ABSENT) != after.get(k, _ABSENT)]


def _flat(
    values: Mapping[str, Any], cls: type[Config], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        block = _block(cls.model_fields.get(key))
        if block and isinstance(value, dict):
            yield from _flat(value, block, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _keys(cls: type[Config], prefix: str = "") -> Iterator[str]:
    """Every dotted key, of blocks and of their fields."""
    for key, field in cls.model_fields.items():
        yield f"{prefix}{key}"
        block = _block(field)
        if block:
            yield from _keys(block, f"{prefix}{key}.")
