"""Sends modules to hosts with their bytecode beside their source.

A module spends most of its processor time on compiling: Ansible packs some fifty source files into a zip, and Python
keeps no bytecode of what it imports from there (docs/architecture.md has figures). Python's zipimport takes a .pyc that
lies beside the source (https://docs.python.org/3/library/zipimport.html), and the source if that is of another version
of Python. So a host with the controller's minor version is faster, and for any other nothing changes.

There is no option of Ansible for it: the class with which Ansible writes the zip is replaced.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: bytecode
type: aggregate
short_description: Send modules with their bytecode
description:
  - Adds the bytecode of every Python file to what Ansible sends to hosts. Hosts with another version of Python than the
    controller's ignore it.
"""

import hashlib
import importlib.util
import marshal
import types
import zipfile
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.executor import module_common
from ansible.plugins.callback import CallbackBase

# PEP 552: bytecode that is known by a hash, which is not to be compared with the source.
UNCHECKED = (1).to_bytes(4, "little") + bytes(8)


def compiled(source: str | bytes, name: str) -> bytes:
    """The .pyc of a source file; kept for the run, since many modules bring the same files."""
    data = source.encode() if isinstance(source, str) else bytes(source)
    kept = Path(C.DEFAULT_LOCAL_TMP) / "bytecode" / hashlib.sha256(name.encode() + b"\0" + data).hexdigest()
    if kept.exists():
        return kept.read_bytes()
    code = compile(data, name, "exec", dont_inherit=True)
    made = importlib.util.MAGIC_NUMBER + UNCHECKED + marshal.dumps(code)
    kept.parent.mkdir(exist_ok=True)
    part = kept.with_suffix(f".{id(code)}")
    part.write_bytes(made)
    part.replace(kept)  # other workers never see half of it
    return made


class Payload(zipfile.ZipFile):
    """The zip of a module."""

    def writestr(
        self, zinfo_or_arcname: Any, data: Any, compress_type: int | None = None, compresslevel: int | None = None
    ) -> None:
        """Add a file, and its bytecode if it is Python."""
        super().writestr(zinfo_or_arcname, data, compress_type, compresslevel)
        if zinfo_or_arcname.filename.endswith(".py"):
            beside = zipfile.ZipInfo(f"{zinfo_or_arcname.filename}c", zinfo_or_arcname.date_time)
            beside.compress_type = zinfo_or_arcname.compress_type
            super().writestr(beside, compiled(data, zinfo_or_arcname.filename))


class CallbackModule(CallbackBase):
    """See DOCUMENTATION. Callbacks are loaded before the first worker starts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "bytecode"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self) -> None:
        super().__init__()
        module_common.zipfile = types.SimpleNamespace(**{**vars(zipfile), "ZipFile": Payload})
