"""The site's proxy as environment variables, for what comes from elsewhere and not for what is the cluster's own."""

from __future__ import annotations

DOCUMENTATION = r"""
name: proxy_variables
short_description: The site's proxy as environment variables
description: Turns the setting C(proxy) into C(HTTP_PROXY), C(HTTPS_PROXY) and C(NO_PROXY), in both spellings.
positional: _input
options:
  _input: {description: "The setting: http, https, no_proxy.", type: dict, required: true}
  own:
    description: Names, addresses and networks of the cluster itself, which are never asked through the proxy.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
environment: "{{ {'http': 'http://proxy:3128'} | proxy_variables(own=['10.42.0.0/16']) }}"
"""

RETURN = r"""
_value: {description: Environment variables; none if there is no proxy., type: dict}
"""

from collections.abc import Iterable
from typing import Any

# Of this machine and of Kubernetes, which every cluster has.
ALWAYS = ("localhost", "127.0.0.1", "::1", ".svc", ".cluster.local")


def proxy_variables(proxy: dict[str, Any], own: Iterable[Any]) -> dict[str, str]:
    """Environment variables for ``proxy``. Programs differ in the spelling that they read."""
    given = {"http_proxy": proxy.get("http"), "https_proxy": proxy.get("https") or proxy.get("http")}
    variables = {name: str(value) for name, value in given.items() if value}
    if not variables:
        return {}
    beside = proxy.get("no_proxy") or []
    listed = [part.strip() for part in beside.split(",")] if isinstance(beside, str) else list(beside)
    variables["no_proxy"] = ",".join(dict.fromkeys(str(item) for item in (*ALWAYS, *own, *listed) if item))
    return variables | {name.upper(): value for name, value in variables.items()}


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """By its name."""
        return {"proxy_variables": proxy_variables}
