"""Ansible modules run in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args


class Ended(BaseException):
    """The module has ended with these results. No module may catch it."""

    def __init__(self, results: dict[str, Any]) -> None:
        super().__init__(results.get("msg"))
        self.results = results


def run_module(main: Callable[[], None], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a module's ``main`` returns for these arguments; with ``failed`` if it fails."""

    def end(self: AnsibleModule, **results: Any) -> None:
        raise Ended(results)

    def fail(self: AnsibleModule, msg: str, **results: Any) -> None:
        raise Ended({"failed": True, "msg": msg, **results})

    with (
        patch.object(AnsibleModule, "exit_json", end),
        patch.object(AnsibleModule, "fail_json", fail),
        patch_module_args(dict(arguments)),
    ):
        try:
            main()
        except Ended as ended:
            return ended.results
    raise AssertionError("the module ended without results")
