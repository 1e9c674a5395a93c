"""A processor with AVX2 only, on one that has more: what reads its flags, and what computes, sees nothing beyond AVX2.

``hide`` puts this file into an environment, where each Python process loads it at its start: torch's own questions
about the processor, which vLLM asks too, are then answered with no, and torch, oneDNN and MKL are told to stay below
AVX-512 by the variables that they have for that. Whoever reads /proc/cpuinfo needs ``masked`` in its place.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

VARIABLES = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
HIDDEN = re.compile(r"avx512|avx10|amx|vnni")


def masked(cpuinfo: str) -> str:
    """The text of /proc/cpuinfo without flags beyond AVX2."""
    return re.sub(r"\S*(?:avx512|avx10|amx_|avx_vnni)\S* ?", "", cpuinfo)


def hide(environment: Path) -> None:
    """Have every Python process of a virtual environment see AVX2 only."""
    (packages,) = environment.glob("lib/python3.*/site-packages")
    shutil.copy(__file__, packages / "avx2_only.py")
    (packages / "avx2_only.pth").write_text("import avx2_only; avx2_only.begin()\n")


def begin() -> None:
    """Take effect in this process."""
    os.environ.update(VARIABLES)
    sys.meta_path.insert(0, _Finder())


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: importlib.abc.Loader) -> None:
        self.inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        for name in list(vars(module)):
            if name.startswith("_is_") and HIDDEN.search(name):
                setattr(module, name, lambda: False)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torch.cpu":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec
