"""What all tests share: where the project lies, and Ansible's name for the shared code."""

from __future__ import annotations

import locale
from collections.abc import Iterator
from pathlib import Path

import ansible.module_utils
import pytest

ROOT = Path(__file__).resolve().parents[1]

# Ansible puts python_plugins/module_utils below ansible.module_utils when it ships a module; tests import modules
# directly.
ansible.module_utils.__path__.append(str(ROOT / "python_plugins" / "module_utils"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one choice that there is."""
    parser.addoption("--long", action="store_true", help="also the tests that CI has no time for")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick tests first: lint, then units, then the real stack. Long ones only where they are asked for.

    A long one is skipped because CI has a time limit. Its mark says how long it takes and what CI has instead; a run
    lists all of them at its end, and docs/development.md names what proves the same.

    Side by side, the longest files first, so that no core is left with nothing to do at the end. Molecule's two files
    do not start together: the second would wait for the image of the hosts, which the first has to build.
    """
    for item in items:
        marker = item.get_closest_marker("long")
        if marker and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason=f"{marker.args[0]}; ./heteroserve test --long runs it"))
    order = ["lint", "unit", "bench", "integration", "images", "molecule", "cluster"]
    if hasattr(config, "workerinput"):
        order = ["cluster", "molecule/test_kernel", "images", "molecule", "integration/test_local", "integration"]
        order += ["lint", "bench", "unit"]

    def place(item: pytest.Item) -> int:
        path = Path(item.path).relative_to(ROOT / "tests").as_posix()
        return next(number for number, start in enumerate(order) if path.startswith(start))

    items.sort(key=place)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(autouse=True)
def own_locale() -> Iterator[None]:
    """AnsibleModule sets the locale of its process, which for a test is that of the tests after it too."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)
