"""The images of the CPU engine and of the one for tests, built as a build host does it: what is in them, what is not.

A cluster that is tested later finds it built.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from heteroserve.common.progress import Progress
from heteroserve.images.builds import Recipe, copied, locked_version, repository

from python_plugins.modules.images.image_build import Tool, build
from tests.cluster.conftest import ROOT, missing
from tests.helpers import serving

BUILD = "vllm-cpu"
LOCK = (ROOT / "requirements" / f"{BUILD}.txt").read_text()


def built(name: str, folder: Path) -> str:
    """The name on this host of an engine's image; where an earlier run built it of the same recipe, that one."""
    if fault := missing():
        pytest.skip(fault)
    containerfile = (ROOT / "images" / name / "Containerfile").read_text()
    sources = {file: (ROOT / file).read_text() for file in copied(containerfile)}
    recipe = Recipe(containerfile, serving.base_image(), tuple(sources.values()))
    image = f"localhost/{repository(name)}:{recipe.digest}"
    tool = Tool(str(shutil.which("podman")), "podman")
    if not tool.has(image):
        asked = {
            "build": name,
            "base": recipe.base,
            "endpoint": "none",
            "disk": 0,
            "containerfile": recipe.containerfile,
            "sources": sources,
            "torch_index": "https://download.pytorch.org/whl/cpu",
        }
        build(SimpleNamespace(params=asked, get_bin_path=shutil.which), tool, image, folder, [], Progress(None))
    return image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The CPU engine's."""
    return built(BUILD, tmp_path_factory.mktemp("build"))


def inside(image: str, script: str, *options: str) -> str:
    """What a script prints in a container that may write to its temporary folders alone, and reaches nobody."""
    limits = ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=10000:10000"]
    command = ["podman", "--runtime", "runc", "run", "--rm", "--read-only", "--network", "none", *limits]
    done = subprocess.run(
        [*command, *options, image, "sh", "-c", script], capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def described(image: str) -> dict[str, Any]:
    done = subprocess.run(["podman", "image", "inspect", image], capture_output=True, encoding="utf-8", check=True)
    return dict(json.loads(done.stdout)[0])


def test_it_says_what_it_is_and_runs_as_nobody_in_particular(image: str) -> None:
    config = described(image)["Config"]
    assert config["User"] == "1000:1000"
    assert config["Labels"]["io.heteroserve.ray"] == locked_version(LOCK, "ray")
    assert config["Labels"]["io.heteroserve.vllm"] == locked_version(LOCK, "vllm-cpu")


def test_the_engine_is_imported_where_its_files_cannot_be_written(image: str) -> None:
    said = inside(image, "id -u; python -c 'import ray, ray.serve.llm, vllm; print(ray.__version__, vllm.__version__)'")
    assert said.splitlines()[0] == "1000"
    assert said.splitlines()[-1].split() == [locked_version(LOCK, "ray"), locked_version(LOCK, "vllm-cpu")]


def test_no_file_of_the_engine_can_be_written_by_others(image: str) -> None:
    assert inside(image, "find /opt -perm -o+w -not -type l", "--user", "0") == ""


def test_it_has_what_the_probes_call(image: str) -> None:
    assert len(inside(image, "command -v wget; command -v grep; command -v ray").splitlines()) == 3


def test_neither_weights_nor_the_builds_secrets_are_in_it(image: str) -> None:
    # Packages bring small tables in the same format.
    weights = r"find / -xdev -size +20M \( -name '*.safetensors' -o -name '*.gguf' -o -name '*.pt' \)"
    assert inside(image, weights, "--user", "0") == ""
    assert inside(image, "find / -xdev -name 'pip*.pem'", "--user", "0") == ""
    assert inside(image, "grep -rlsE '^(PIP|UV)_[A-Z_]+=' /etc /home /opt /root /tmp /var; true", "--user", "0") == ""
    history = json.dumps(described(image)["History"])
    assert not re.search(r"://[^/\s]+@|password|token", history, re.IGNORECASE)


def test_it_is_no_larger_than_what_the_lock_asks_for(image: str) -> None:
    """Nothing of uv and its cache, the packages' tests or the compiler is carried to every host."""
    assert inside(image, "ls -A /opt").split() == ["engine", "library"]
    assert inside(image, "find /opt/engine/lib -depth -type d -name tests; command -v gcc; true") == ""
    print(f"{described(image)['Size'] / 1e9:.2f} GB")


def test_what_is_in_it_converts_weights(image: str) -> None:
    """Real ones, which clusters of later tests serve."""
    folder = serving.weights({"inputs": image.rpartition(":")[2]})
    assert (folder / "config.json").exists()
    assert any(folder.glob("*.safetensors"))


def test_the_engine_for_tests_is_imported_where_its_files_cannot_be_written(tmp_path: Path) -> None:
    said = inside(
        built("echo", tmp_path), "id -u; python -c 'import ray, serving.engines.echo; print(ray.__version__)'"
    )
    assert said.splitlines()[0] == "1000"
    assert said.splitlines()[-1] == locked_version((ROOT / "requirements" / "echo.txt").read_text(), "ray")


LOADS = """
import asyncio, importlib, pathlib
from serving.engines.protocol import Sampling
module = importlib.import_module("serving.engines.ENGINE")
engine = module.load("/weights", module.Arguments(max_model_len=512, threads=2))
text = engine.text
prompt = text.encode(text.chat([{"role": "user", "content": "What is the capital of France?"}], {}), False)

async def run():
    wanted = Sampling(max_tokens=16, stop_ids=text.eos_ids, temperature=0)
    return [token.id async for token in engine.generate(prompt, wanted)]

print(text.decode(asyncio.run(run())))
engine.close()
"""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("openvino", marks=pytest.mark.long("two minutes and 6 GB of disk; vllm-cpu is built alike")),
        pytest.param("onnx", marks=pytest.mark.long("two minutes and 6 GB of disk; vllm-cpu is built alike")),
        pytest.param("bigdl", marks=pytest.mark.long("two minutes and 6 GB of disk; vllm-cpu is built alike")),
    ],
)
def test_an_engine_with_our_surface_converts_weights_and_answers(image: str, name: str, tmp_path: Path) -> None:
    """As in a pod: no network, a file system that cannot be written, weights that can only be read."""
    weights = serving.weights({"inputs": image.rpartition(":")[2]})
    mounts = [f"--volume={weights}:/weights:ro", "--tmpfs=/cache:mode=1777", "--tmpfs=/tmp:mode=1777"]
    script = LOADS.replace("ENGINE", name)
    said = inside(built(name, tmp_path), f"python - <<'END'\n{script}\nEND", *mounts, "--env=HETEROSERVE_CACHE=/cache")
    assert "Paris" in said
    print(f"{name}: {described(built(name, tmp_path))['Size'] / 1e9:.2f} GB")
