"""awx/execution-environment.yml: ansible-builder takes it, its image runs jobs as an account that it does not know."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import ROOT, missing
from tests.helpers.awx_jobs import UID, ContainerNode

DEFINITION = ROOT / "awx" / "execution-environment.yml"
BASE = "localhost/heteroserve-ee-base:bookworm"
IMAGE = "localhost/heteroserve-ee:test"
# Of the base, where no registry with CentOS is reached: what the package manager would be asked for is there already.
PACKAGES = "git,openssh-client,sshpass,python3-pip"
# What ansible-builder installs beside the definition's packages.
BUILDERS = ["bindep", "dumb-init==1.2.5", "packaging", "pyyaml", "setuptools"]


def created(definition: Path, context: Path) -> str:
    """The Containerfile that ansible-builder writes."""
    command = ["ansible-builder", "create", "--file", str(definition), "--context", str(context)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return (context / "Containerfile").read_text()


def test_ansible_builder_takes_the_definition(tmp_path: Path) -> None:
    text = created(DEFINITION, tmp_path)
    assert 'ARG EE_BASE_IMAGE="quay.io/centos/centos:stream9"' in text
    assert "--require-hashes --requirement /tmp/control.txt" in text
    assert (tmp_path / "_build" / "locks" / "control.txt").read_text() == (
        ROOT / "requirements" / "control.txt"
    ).read_text()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Built of the same definition on Debian: another base, its package manager, and its pip."""
    if fault := missing():
        pytest.skip(fault)
    subprocess.run([str(ROOT / "tests/helpers/base_image.sh"), BASE, "", PACKAGES], check=True, timeout=900)
    scratch = tmp_path_factory.mktemp("ee")
    wheels, made = scratch / "wheels", scratch / "ee" / "awx" / DEFINITION.name
    made.parent.mkdir(parents=True)
    shutil.copytree(ROOT / "requirements", made.parents[1] / "requirements")
    definition = yaml.safe_load(DEFINITION.read_text())
    definition["images"]["base_image"]["name"] = BASE
    definition["options"] = {"package_manager_path": "/usr/bin/apt-get", "skip_pip_install": True}
    made.write_text(yaml.safe_dump(definition))
    created(made, scratch / "context")
    # This machine knows where packages come from, a container does not.
    runner = definition["dependencies"]["ansible_runner"]["package_pip"]
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels), "--only-binary=:all:"]
    fetch += ["--python-version=3.11"]
    subprocess.run([*fetch, "--requirement", str(ROOT / "requirements/control.txt")], check=True, timeout=900)
    subprocess.run([*fetch, runner, *BUILDERS], check=True, timeout=900)
    (scratch / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    limits = ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=10000:10000"]
    mounts = ["--volume", f"{wheels}:/wheels:ro", "--volume", f"{scratch / 'pip.conf'}:/etc/pip.conf:ro"]
    build = ["podman", "--runtime", "runc", "build", "--network", "host", *limits, *mounts, "--tag", IMAGE]
    done = subprocess.run([*build, str(scratch / "context")], capture_output=True, encoding="utf-8", timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return IMAGE


@pytest.mark.long("three minutes; test_awx_jobs.py runs the same jobs without a container")
def test_a_container_of_it_validates_and_plans_as_an_unknown_account(image: str, tmp_path: Path) -> None:
    node = ContainerNode(tmp_path / "node", ROOT / "inventory" / "dell", image=image)
    node.succeed("validate")
    job = node.succeed("facts and plan")
    assert "What runs where" in job.stdout
    assert "llama-3.1-405b-instruct" in job.statistics["heteroserve_plan"]["models"]
    plan = node.state / "plan.json"
    assert plan.stat().st_uid == UID
    said = "state_dir: /runner/state lies in /runner, which AWX removes after the job"
    node.refuse("validate", said, state_dir="/runner/state")
    size = subprocess.run(["podman", "image", "inspect", "--format={{.Size}}", image], capture_output=True, check=True)
    print(f"the image: {int(size.stdout) / 1e6:.0f} MB")
