"""Which GPU driver runs and which is installed: ``python3 -m heteroserve.monitoring.driver_versions FILE``.

The file is for node_exporter's textfile collector.

After an upgrade of the packages the kernel goes on with the old module until a reboot, and the new library refuses it:
what runs goes on, and nothing new starts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ..common.files import write_whole
from .exposition import Sample, render

HELP = {"heteroserve_gpu_driver_mismatch": "1 if another driver is installed than the one that runs."}
LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")


def samples(root: Path) -> Iterator[Sample]:
    """NVIDIA's driver: the version of the loaded module, and that of the library beside which it must be."""
    try:
        loaded = (root / "sys/module/nvidia/version").read_text().strip()
    except OSError:
        return
    names = (path.name for folder in LIBRARIES for path in (root / folder[1:]).glob("libnvidia-ml.so.*.*"))
    installed = sorted(
        {match[1] for name in names if (match := re.fullmatch(r"libnvidia-ml\.so\.(\d+(?:\.\d+)+)", name))}
    )
    if installed:
        labels = {"vendor": "nvidia", "loaded": loaded, "installed": ", ".join(installed)}
        yield Sample("heteroserve_gpu_driver_mismatch", float(installed != [loaded]), labels)


def main() -> None:
    """Entry point."""
    write_whole(Path(sys.argv[1]), render(samples(Path("/")), HELP), 0o644)


if __name__ == "__main__":
    main()
