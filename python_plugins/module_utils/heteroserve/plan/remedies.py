"""What to set so that a model runs, tried before it is said: no advice leads to another refusal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..inventory.models import DraftModel, ModelRequest
from .bays import HostShape
from .fit import HERE, NO_SETTING, fits, want
from .memory import Misfit
from .model_shape import ModelShape
from .request import PlanOptions, fault_of_rank, faults_of

LONGEST = 8  # settings that are changed one after the other before it is given up


@dataclass(frozen=True)
class Remedy:
    """What would help, in words; ``settings`` are new values of keys of the model's entry (None: remove the key)."""

    change: str
    settings: dict[str, Any] = field(default_factory=dict)


def nearest(misfits: Iterable[Misfit]) -> Misfit | None:
    """The reason that came closest to working."""
    return min(misfits, key=lambda item: (item.rank, item.lack, item.text), default=None)


def remedy(
    request: ModelRequest,
    shape: ModelShape,
    misfit: Misfit,
    hosts: Sequence[HostShape],
    options: PlanOptions,
    host: str | None = None,
) -> Remedy:
    """Follow a misfit's settings, and those of what then is in the way, until the model fits on one of ``hosts``.

    With ``host`` the advice is for the host of that name, whose shape is the only one.
    """
    settings: dict[str, Any] = {}
    last = misfit
    for _ in range(LONGEST):
        new = {key: value for key, value in last.settings if settings.get(key, ...) != value}
        if not new or (HERE in (new.get("hosts") or ()) and host is None):
            break
        settings.update(new)
        changed = replace(request, **{key: _filled(key, value, host) for key, value in settings.items()})
        if fault := faults_of(changed, shape, options.builds) or fault_of_rank(changed):
            last = fault_as_misfit(fault)
            continue
        wanted = want(changed, shape)
        allowed = [replace(one, allowed=(*one.allowed, request.name)) for one in hosts] if host else hosts
        outcomes = [fits(wanted, one, options) for one in allowed]
        if any(found for found, _ in outcomes):
            note = f" {misfit.note}" if misfit.note and len(settings) == 1 else ""
            filled = {key: None if value is None else _filled(key, value, host) for key, value in settings.items()}
            return Remedy(in_words(request, settings) + note, filled)
        last = nearest(miss for _, failed in outcomes for miss in failed) or Misfit("no host is left")
    if last.change and not last.settings:
        return Remedy(last.change)
    return Remedy(misfit.change or NO_SETTING)


def fault_as_misfit(fault: str) -> Misfit:
    """A setting that no hardware could satisfy ("KEY: what is wrong") can only be taken out."""
    return Misfit(fault, settings=((fault.partition(":")[0], None),))


def _filled(key: str, value: Any, host: str | None) -> Any:
    """The value as the model's entry has it: the default where the key is removed."""
    if value is None:
        return getattr(ModelRequest(""), key)
    return tuple(host if name == HERE else name for name in value) if key == "hosts" else value


def in_words(request: ModelRequest, settings: dict[str, Any]) -> str:
    """The settings as an operator types them."""
    parts = []
    for key, value in settings.items():
        if key == "hosts":
            parts.append("add the host to the model's `hosts`")
        elif value is None:
            was = getattr(request, key)
            plain = not isinstance(was, (DraftModel, tuple))
            parts.append(f"remove `{key}: {_typed(was)}`" if plain else f"remove `{key}`")
        else:
            parts.append(f"set `{key}: {_typed(value)}`" + (" or less" if key == "context" else ""))
    return " and ".join(parts)


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
