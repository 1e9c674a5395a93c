"""What programs print when they give up, and what an operator should do about it: one table for all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

NOT_BUILT = "the registry has no such image: build and push it with playbooks/images.yml, or correct its name"
UNREACHED = "the host does not reach the registry"
MIRROR = (
    "set images_base.{build} to an image that already has what its Containerfile installs: then the mirror of the"
    " base's packages is not asked"
)


@dataclass(frozen=True)
class Cause:
    """A sign in a program's output, as a regular expression, and the advice for each of those that may print it."""

    sign: str
    build: str = ""  # of an engine's image; {build} is its name
    pull: str = ""  # of an image by a host
    serve: str = ""  # Ray and the engine


CAUSES = (
    Cause(
        r"[Nn]o space left",
        build="free space on the build host, or name another in images_host",
        pull="the host's disk is full: free space below /var/lib/rancher",
        serve="the disk is full: free space where state_dir lies",
    ),
    Cause(
        r"AssertionError: vLLM is",
        build="the lock is for another version: set images_base.{build} to an image that has that one",
    ),
    Cause(r"AssertionError: no Python\.h", build="set images_base.{build} to an image with the headers of its Python"),
    Cause(
        r"AssertionError: torch is", build="set engine_torch_index to an index that has torch for these accelerators"
    ),
    Cause(
        r"Unable to locate package|Unable to fetch|Failed to fetch(?!:)|Temporary failure resolving"
        r"|apt-get: .*not found",
        build=MIRROR,
    ),
    Cause(r"\.so\S* => not found", build="set images_base.{build} to an image that has this library"),
    Cause(
        r"DO NOT MATCH THE HASHES|Hash mismatch",
        build="the package index has other files than the lock: use a whole mirror of PyPI",
    ),
    Cause(
        r"No matching distribution|No solution found|Failed to fetch|Failed to download|error sending request"
        r"|Connection to|HTTPSConnection|ProxyError|SSLError",
        build="set index-url in the build host's configuration of pip to an index that it reaches and that has the"
        " package",
    ),
    Cause(
        r"\b(runc|crun|newuidmap)\b|[Oo]peration not permitted",
        build="the build host may not start containers: set BUILDAH_ISOLATION=chroot in its environment, or another"
        " images_host",
    ),
    Cause(
        r"InvalidImageName|couldn't parse image|invalid reference", pull="the name is no name of an image: correct it"
    ),
    Cause(r"not found|manifest unknown|does not exist|ErrImageNeverPull", pull=NOT_BUILT),
    Cause(
        r"401|403|[Uu]nauthorized|denied|no basic auth|authorization failed",
        pull="the registry does not let it be read: set the pull secret's user and password",
    ),
    Cause(
        r"x509|certificate|http: server gave HTTP response",
        pull="the host does not trust the registry: see k3s_registries",
    ),
    Cause(r"no such host|dial tcp|timeout|connection refused|EOF", pull=UNREACHED),
    Cause(
        r"[Aa]ddress already in use|No available ports on node",
        serve="a port of the cell is taken: set cell_port_base to a free range, or run down and up again",
    ),
    Cause(
        r"OutOfMemory|out of memory|Cannot allocate memory|oom-?kill|SIGKILL|exit code -9",
        serve="the host ran out of memory: lower the model's kv_cache_gib or context, or end other programs",
    ),
    Cause(
        r"No available memory for the cache blocks|larger than the available KV cache memory|KV cache is needed",
        serve="the KV cache is too small for the context: raise the model's kv_cache_gib or lower its context",
    ),
    Cause(r"No module named", serve="the engine's environment is incomplete: run up again"),
    Cause(
        r"Unknown engine argument|unexpected keyword argument|Extra inputs are not permitted|unrecognized arguments"
        r"|validation error",
        serve="an engine argument is wrong: see the model's engine_args",
    ),
    Cause(
        r"No such file or directory|does not appear to have a file|not a valid model|Repo id must",
        serve="the weights cannot be read: run playbooks/models.yml and see the model's source",
    ),
)


def advice(who: str, said: str) -> str:
    """What to do when ``who`` ("build", "pull" or "serve") says this: the first cause that fits; "" for none."""
    return next((text for cause in CAUSES if (text := getattr(cause, who)) and re.search(cause.sign, said)), "")
