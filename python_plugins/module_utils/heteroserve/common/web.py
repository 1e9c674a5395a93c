"""Asks over HTTP what HeteroServe itself runs: cells, gateways, registries, servers of the cluster.

Never through a proxy, whatever the environment of whoever started the run says: a proxy does not reach them.
"""

from __future__ import annotations

import ssl
import urllib.parse
import urllib.request
from typing import Any


def at(address: str, port: int | str) -> str:
    """An address and a port as a URL has them: brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address and not address.startswith("[") else f"{address}:{port}"


def open_own(request: urllib.request.Request | str, timeout: float, context: ssl.SSLContext | None = None) -> Any:
    """The response, to be closed by the caller. Raises ``OSError``, of which ``urllib.error.HTTPError`` is one."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers).open(request, timeout=timeout)


def open_outside(request: urllib.request.Request, timeout: float) -> Any:
    """As ``open_own``, of a site elsewhere: by the proxy that the environment names, if it names one.

    What only the asked host may see, its ``Authorization``, goes along to no other host.
    """
    return urllib.request.build_opener(_OwnHost()).open(request, timeout=timeout)


class _OwnHost(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        before, after = (urllib.parse.urlsplit(url) for url in (req.full_url, newurl))
        if new is not None and (before.scheme, before.netloc) != (after.scheme, after.netloc):
            new.remove_header("Authorization")
        return new
