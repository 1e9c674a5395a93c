"""Molecule scenarios that set values of the kernel, which all hosts of this machine share: one after the other.

Another set of hosts may run beside them, but not set or restore such values meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.conftest import lock

SCENARIOS = ("gpu_device_plugin", "host_prep")


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, passes: Callable[[str], None]) -> None:
    with lock("kernel"):
        passes(name)
