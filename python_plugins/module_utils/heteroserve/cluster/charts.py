"""What a Helm release is, and whether the one in the cluster is the one that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Where the digest of the chart is kept among a release's values, so that a chart that was rebuilt under the same
# version is seen. No chart of ours reads this key.
DIGEST_KEY = "heteroserveChart"
# Kinds whose absence is found by the next run: what a release is installed for.
WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over`` set, mappings joined, anything else replaced."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            result[key] = merged(known, value)
        else:
            result[key] = value
    return result


def with_digest(values: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Values of a release that remember their chart."""
    return {**values, DIGEST_KEY: {"sha256": digest}}


def workloads(status: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Kind, name and namespace of what a release has to keep alive."""
    found = []
    for item in (status or {}).get("manifest") or []:
        if item and item.get("kind") in WORKLOADS:
            meta = item["metadata"]
            found.append({"kind": item["kind"], "name": meta["name"], "namespace": meta.get("namespace") or ""})
    return found


def change_of(
    chart: str, version: str, values: Mapping[str, Any], status: Mapping[str, Any] | None, missing: Sequence[str]
) -> str:
    """Why a release has to be installed or upgraded; empty where it is as wanted.

    ``status`` is what kubernetes.core.helm_info returned, ``missing`` names objects of the release that are gone.
    """
    if not status:
        return "it is not installed"
    state = str(status.get("status", "")).lower()
    if state != "deployed":
        return f"its last change ended as {state}"
    if status.get("chart") != f"{chart}-{version}":
        return f"{status.get('chart')} is installed, {chart}-{version} is wanted"
    current = status.get("values") or {}
    if current != dict(values):
        keys = sorted(key for key in {*current, *values} if current.get(key) != values.get(key))
        return f"its values differ: {', '.join(keys)}"
    if missing:
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} gone"
    return ""
