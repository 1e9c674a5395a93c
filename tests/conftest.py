"""What all tests share: where the project lies, and Ansible's name for the shared code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]

# Ansible puts python_plugins/module_utils below ansible.module_utils when it ships a module; tests import modules
# directly.
ansible.module_utils.__path__.append(str(ROOT / "python_plugins" / "module_utils"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one choice that there is."""
    parser.addoption("--long", action="store_true", help="also the tests that CI has no time for")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick tests first: lint, then units, then the real stack. Long ones only where they are asked for.

    The rack comes last, when the other worker (tests/run) is done or nearly so: its load tests want the machine for
    themselves.
    """
    for item in items:
        marker = item.get_closest_marker("long")
        if marker and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason=f"{marker.args[0]}; ./heteroserve test --long runs it"))
    order = {"lint": 0, "unit": 1, "bench": 2, "integration": 3, "hosts": 4, "rack": 5}
    items.sort(key=lambda item: order.get(together(item.nodeid).partition("/")[0], 1))


def together(nodeid: str) -> str:
    """The group that one worker runs: the tests of a file, or all that use the same machine or the same hosts."""
    path = nodeid.partition("::")[0].removeprefix("tests/")
    if path.startswith("integration/"):
        return "integration"
    if path.startswith(("molecule/", "cluster/")):
        return "rack" if path.endswith("test_rack.py") else "hosts"
    return path


class Groups(LoadScopeScheduling):
    """Gives groups to the workers in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Not xdist's own groups: 3.8 writes them into an attribute that pytest 9 does not read."""
    return Groups(config, log)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT
