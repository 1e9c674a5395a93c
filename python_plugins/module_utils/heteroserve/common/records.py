"""Dataclasses to and from JSON, with errors that name the place: what pydantic does, for the standard library.

``from_dict`` is strict: unknown keys, missing keys and wrong types are errors, because a plan or a fact
that is read wrongly would be carried out wrongly.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, TypeVar

T = TypeVar("T")
FLOAT = r"-?\d+(\.\d+)?"


def bounded(default: Any, *, least: float | None = None, above: float | None = None) -> Any:
    """A dataclass's field whose number is at least ``least``, or more than ``above``; None stays None."""
    return dataclasses.field(default=default, metadata={"least": least, "above": above})


def _bound_fault(item: dataclasses.Field[Any], value: Any) -> str | None:
    """What a field's number should be, as "at least 1"; None where it is that, or no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    least, above = item.metadata.get("least"), item.metadata.get("above")
    if least is not None and value < least:
        return f"at least {least}"
    return f"more than {above}" if above is not None and value <= above else None


def to_dict(value: Any) -> Any:
    """Turn a dataclass, and whatever it holds, into plain JSON types (tuples become lists)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_dict(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    return value


def from_dict(kind: type[T], data: Any, where: str = "", texts: bool = False) -> T:
    """Build dataclass ``kind`` from plain types.

    With ``texts`` a number or truth value may be written as text ("4096"), as it is on Ansible's command line.
    Raises ``ValueError`` whose text starts with the path of the value at fault, such as
    ``cells[0].ports: ...``.
    """
    return typing.cast(T, _build(kind, data, where, texts))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _build(kind: Any, data: Any, where: str, texts: bool) -> Any:
    if kind is Any:
        return data
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _build_union(kind, data, where, texts)
    if origin is typing.Literal:
        if data not in typing.get_args(kind):
            raise ValueError(f"{where}: found {data!r}, expected one of {', '.join(map(repr, typing.get_args(kind)))}")
        return data
    if origin in (tuple, list):
        if not isinstance(data, (list, tuple)):
            raise ValueError(f"{where}: found {_name(data)}, expected a list")
        item = typing.get_args(kind)[0]
        return origin(_build(item, value, f"{where}[{index}]", texts) for index, value in enumerate(data))
    if origin is dict or kind is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{where}: found {_name(data)}, expected a mapping")
        value_kind = typing.get_args(kind)[1] if typing.get_args(kind) else Any
        return {str(key): _build(value_kind, value, f"{where}.{key}", texts) for key, value in data.items()}
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast(type, kind), data, where, texts)
    if texts and isinstance(data, str):
        data = _converted(kind, data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is float and isinstance(data, float) and not math.isfinite(data):
        raise ValueError(f"{where}: found {data!r}, expected a number")
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise ValueError(f"{where}: found {_name(data)} {data!r}, expected {kind.__name__}")
    return data


def _converted(kind: Any, text: str) -> Any:
    """The number or truth value that a text plainly is; any other text as it is."""
    if kind is int and re.fullmatch(r"\d+", text):
        return int(text)
    if kind is float and re.fullmatch(FLOAT, text):
        return float(text)
    if kind is bool and text.lower() in ("true", "false", "yes", "no"):
        return text.lower() in ("true", "yes")
    return text


def _build_union(kind: Any, data: Any, where: str, texts: bool) -> Any:
    choices = typing.get_args(kind)
    if data is None and type(None) in choices:
        return None
    choices = tuple(choice for choice in choices if choice is not type(None))
    if len(choices) == 1:
        return _build(choices[0], data, where, texts)
    faults = []
    for choice in choices:
        try:
            return _build(choice, data, where, texts)
        except ValueError as fault:
            faults.append(str(fault))
    raise ValueError("; or ".join(faults))


def _build_dataclass(kind: type, data: Any, where: str, texts: bool) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where or kind.__name__}: found {_name(data)}, expected a mapping")
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in data:
        if key not in known:
            near = get_close_matches(str(key), list(known), n=1)
            hint = f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
            raise ValueError(f"{_join(where, str(key))}: unknown key{hint}")
    values = {}
    for name, item in known.items():
        if name in data:
            values[name] = _build(_hints(kind)[name], data[name], _join(where, name), texts)
            if expected := _bound_fault(item, values[name]):
                raise ValueError(f"{_join(where, name)}: found {data[name]!r}, expected {expected}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ValueError(f"{_join(where, name)}: missing")
    return kind(**values)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _name(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number"}.get(
        type(value), type(value).__name__
    )


def number(value: Any) -> int | None:
    """An integer, also one typed on the command line, where everything is text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d+", value) else None


def type_faults(kind: Any, data: Any, key: str) -> list[tuple[str, str, str]]:
    """Every place in ``data`` that does not fit ``kind``: (key path, what was found, what to set)."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return []
    if origin in (types.UnionType, typing.Union):
        choices = [choice for choice in typing.get_args(kind) if choice is not type(None)]
        if data is None:
            return []
        return min((type_faults(choice, data, key) for choice in choices), key=len)
    if origin is Literal:
        choices = list(map(str, typing.get_args(kind)))
        if data in choices:
            return []
        near = get_close_matches(str(data), choices, n=1)
        fix = f"did you mean {near[0]}?" if near else f"set one of: {', '.join(choices)}"
        return [(key, f"{data!r} does not exist", fix)]
    if origin in (list, tuple):
        if not isinstance(data, (list, tuple)):
            return [(key, f"{shown(data)}", "set a list")]
        item = typing.get_args(kind)[0]
        return [fault for index, value in enumerate(data) for fault in type_faults(item, value, f"{key}[{index}]")]
    if origin is dict or kind is dict:
        if not isinstance(data, dict):
            return [(key, f"{shown(data)}", "set a mapping")]
        value_kind = typing.get_args(kind)[1] if typing.get_args(kind) else Any
        return [fault for name, value in data.items() for fault in type_faults(value_kind, value, f"{key}.{name}")]
    if dataclasses.is_dataclass(kind):
        return _mapping_faults(kind, data, key)
    return _scalar_faults(kind, data, key)


def _mapping_faults(kind: Any, data: Any, key: str) -> list[tuple[str, str, str]]:
    if not isinstance(data, dict):
        return [(key, f"{shown(data)}", "set a mapping")]
    known = {item.name: item for item in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    faults = []
    for name, value in data.items():
        if name in known:
            found = type_faults(hints[name], value, f"{key}.{name}")
            if not found and (expected := _bound_fault(known[name], _number_of(value))):
                found = [(f"{key}.{name}", shown(value), f"set {expected}")]
            faults += found
        else:
            near = get_close_matches(str(name), list(known), n=1, cutoff=0.5)
            fix = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            faults.append((f"{key}.{name}", "unknown key", fix))
    for name, item in known.items():
        if name not in data and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            faults.append((f"{key}.{name}", "missing", "set it"))
    return faults


def _number_of(value: Any) -> Any:
    """The number that a text is."""
    return float(value) if isinstance(value, str) and re.fullmatch(FLOAT, value) else value


def _scalar_faults(kind: Any, data: Any, key: str) -> list[tuple[str, str, str]]:
    fits = {
        bool: isinstance(data, bool) or str(data).lower() in ("true", "false", "yes", "no"),
        int: number(data) is not None,
        float: not isinstance(data, bool) and re.fullmatch(FLOAT, str(data)) is not None,
        str: isinstance(data, str) and data != "",
    }
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return [] if fits[kind] else [(key, shown(data), f"set {words[kind]}")]


def shown(data: Any) -> str:
    """What stands there, in words."""
    if data == "":
        return "found nothing"
    if isinstance(data, dict):
        return "found a mapping"
    return "found a list" if isinstance(data, list) else f"found {data!r}"
