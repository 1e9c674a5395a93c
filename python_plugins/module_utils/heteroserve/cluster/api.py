"""The way to the Kubernetes API for modules that run on the controller."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any


def connect(kubeconfig: str) -> Any:
    """A connection of the package kubernetes. The package is imported here, because hosts do not have it."""
    return import_module("kubernetes.config").new_client_from_config(config_file=kubeconfig)


def kubernetes() -> Any:
    """Its module client, with the classes of the API; their types say "or None" of everything, so they are left out."""
    return import_module("kubernetes.client")


def dynamic(connection: Any) -> Any:
    """A client of any kind of object, by dictionaries.

    It keeps what it learns of the API's kinds in a file, whose name depends on the address only, and never looks again:
    CRDs that went, or another cluster at the address, would be asked for in vain. Here it gets a file that cannot be.
    """
    return import_module("kubernetes.dynamic").DynamicClient(connection, cache_file=f"{os.devnull}/none")


def pod_log(core: Any, name: str, namespace: str, **which: Any) -> str:
    """A pod's log, or the part of it that ``which`` names as the client does; its ``ApiException`` where there is none.

    As bytes: a log of one JSON line the client would take for a document, and give back as Python writes it.
    """
    reply = core.read_namespaced_pod_log(name, namespace, _preload_content=False, **which)
    return str(reply.data.decode(errors="replace"))
