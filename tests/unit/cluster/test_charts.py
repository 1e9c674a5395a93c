"""A release is changed when, and because, something about it is not as wanted."""

from __future__ import annotations

from typing import Any

import pytest
from heteroserve.cluster.charts import change_of, merged, with_digest, workloads

VALUES = {"image": {"tag": "1"}}
STATUS: dict[str, Any] = {"status": "deployed", "chart": "plugin-1.0.0", "values": VALUES}


@pytest.mark.parametrize(
    ("status", "missing", "why"),
    [
        (None, (), "it is not installed"),
        (STATUS, (), ""),
        ({**STATUS, "status": "failed"}, (), "its last change ended as failed"),
        ({**STATUS, "chart": "plugin-0.9.0"}, (), "plugin-0.9.0 is installed, plugin-1.0.0 is wanted"),
        ({**STATUS, "values": {"image": {"tag": "0"}, "more": 1}}, (), "its values differ: image, more"),
        (STATUS, ("DaemonSet plugin",), "DaemonSet plugin is gone"),
    ],
)
def test_why_a_release_is_changed(status: dict[str, Any] | None, missing: tuple[str, ...], why: str) -> None:
    assert change_of("plugin", "1.0.0", VALUES, status, missing) == why


def test_a_chart_rebuilt_under_its_version_is_a_change() -> None:
    status = {**STATUS, "values": with_digest(VALUES, "1" * 64)}
    assert change_of("plugin", "1.0.0", with_digest(VALUES, "1" * 64), status, ()) == ""
    assert change_of("plugin", "1.0.0", with_digest(VALUES, "2" * 64), status, ()) != ""


def test_only_what_has_to_stay_alive_is_looked_for() -> None:
    manifest: list[Any] = [
        {"kind": "ConfigMap", "metadata": {"name": "a"}},
        {"kind": "DaemonSet", "metadata": {"name": "b", "namespace": "n"}},
        {"kind": "Deployment", "metadata": {"name": "c"}},
        None,
    ]
    assert workloads({"manifest": manifest}) == [
        {"kind": "DaemonSet", "name": "b", "namespace": "n"},
        {"kind": "Deployment", "name": "c", "namespace": ""},
    ]
    assert workloads(None) == []


def test_values_are_joined_and_lists_replaced() -> None:
    base = {"image": {"tag": "1", "pull": "always"}, "tolerations": [1, 2]}
    over = {"image": {"tag": "2"}, "tolerations": [3]}
    assert merged(base, over) == {"image": {"tag": "2", "pull": "always"}, "tolerations": [3]}
    assert base["tolerations"] == [1, 2]
