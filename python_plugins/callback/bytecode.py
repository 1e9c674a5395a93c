"""Sends modules to hosts with their bytecode beside their source.

A module spends most of its processor time on compiling: Ansible packs some fifty source files into a zip, and Python
keeps no bytecode of what it imports from there (docs/architecture.md has figures). Python's zipimport takes a .pyc that
lies beside the source (https://docs.python.org/3/library/zipimport.html), and the source if that is of another version
of Python. So a host with the controller's minor version is faster, and for any other nothing changes.

To pack a module, Ansible parses each of these files in every run to see what it imports. What a file imports and its
bytecode depend on its text alone, so both are kept between runs in .cache/modules, under the text's hash.

There is no option of Ansible for it: the classes with which Ansible reads the sources and writes the zip are replaced.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: bytecode
type: aggregate
short_description: Send modules with their bytecode
description:
  - Adds the bytecode of every Python file to what Ansible sends to hosts. Hosts with another version of Python than the
    controller's ignore it.
  - Keeps the bytecode, and what each file imports, between runs in the folder .cache/modules of the project. It can be
    deleted at any time.
"""

import functools
import hashlib
import importlib.util
import json
import marshal
import os
import types
import zipfile
from pathlib import Path
from typing import Any

from ansible import __version__
from ansible import constants as C
from ansible.executor import module_common
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, test_loader

# PEP 552: bytecode that is known by a hash, which is not to be compared with the source.
UNCHECKED = (1).to_bytes(4, "little") + bytes(8)
CACHE = Path(__file__).resolve().parents[2] / ".cache"
load = DataLoader.load_from_file
LOADED: dict[tuple[Any, ...], Any] = {}
parse, find = module_common._compile_module_ast, module_common.ModuleDepFinder.__init__


@functools.cache
def kept() -> Path:
    """The folder of what is kept: between runs if it is, or can be, this user's alone, and else for this run.

    What lies there runs on hosts, so nobody else may write to it.
    """
    folder = CACHE / "modules"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
        if state.st_uid == os.geteuid() and not state.st_mode & 0o022 and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = Path(C.DEFAULT_LOCAL_TMP) / "modules"
    folder.mkdir(exist_ok=True)
    return folder


def remember(path: Path, data: bytes) -> None:
    """Write a file that other workers, and other runs, never see half of. A full disk only costs time."""
    part = path.with_suffix(f".{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)


def digest(*parts: str | bytes) -> str:
    """A file name for what is made of the parts, by this version of Python and Ansible."""
    found = hashlib.sha256(importlib.util.MAGIC_NUMBER + __version__.encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else bytes(part)
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


def read(path: Path) -> bytes:
    """What is kept, or nothing."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def compiled(source: str | bytes, name: str) -> bytes:
    """The .pyc of a source file."""
    path = kept() / f"{digest(name, source)}.pyc"
    if found := read(path):
        return found
    code = compile(bytes(source) if isinstance(source, bytes) else str(source), name, "exec", dont_inherit=True)
    made = importlib.util.MAGIC_NUMBER + UNCHECKED + marshal.dumps(code)
    remember(path, made)
    return made


class Source:
    """Stands for the syntax tree of a source file, which is parsed only where somebody looks at it."""

    def __init__(self, name: str, text: str | bytes) -> None:
        self.name, self.text = name, text

    @property
    def body(self) -> Any:
        """As a tree has it."""
        return parse(self.name, self.text).body


def found_imports(finder: Any, module_fqn: str, tree: Source, is_pkg_init: bool = False) -> None:
    """Instead of ``ModuleDepFinder.__init__``: what a source file imports, without a look at it if that is known."""
    path = kept() / f"{digest(str(module_fqn), str(is_pkg_init), tree.text)}.json"
    if known := read(path):
        finder.submodules, finder.optional_imports = ({tuple(name) for name in names} for names in json.loads(known))
        return
    find(finder, module_fqn, parse(tree.name, tree.text), is_pkg_init)
    remember(path, json.dumps([sorted(finder.submodules), sorted(finder.optional_imports)]).encode())


def load_once(loader: DataLoader, file_name: str, cache: str = "all", unsafe: bool = False, **options: Any) -> Any:
    """Instead of ``DataLoader.load_from_file``: a play's vars_files are parsed when they change, not for every task."""
    if cache != "vaulted" or not unsafe:
        return load(loader, file_name, cache, unsafe, **options)
    try:
        path = loader.path_dwim(file_name)
        state = os.stat(path)
    except OSError:
        return load(loader, file_name, cache, unsafe, **options)
    key = (path, state.st_mtime_ns, state.st_size, state.st_ino, *sorted(options.items()))
    if key not in LOADED:
        LOADED[key] = load(loader, file_name, cache, unsafe, **options)
    return LOADED[key]


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
        # Otherwise each worker, one for every task on every host, imports all filters for itself when it needs one.
        for loader in (filter_loader, test_loader):
            loader.get("default")
        module_common._compile_module_ast = Source
        module_common.ModuleDepFinder.__init__ = found_imports
        DataLoader.load_from_file = load_once
        module_common.zipfile = types.SimpleNamespace(**{**vars(zipfile), "ZipFile": Payload})
