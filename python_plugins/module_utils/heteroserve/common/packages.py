"""Python packages: pip's configuration, which operators know and set, in the words of uv, which installs."""

from __future__ import annotations

import ast
import re
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

INDEXES = ("index-url", "extra-index-url", "find-links")  # settings whose words are indexes or folders
# What decides where packages come from. Certificates are files of the host, and are not part of it.
SETTINGS = (*INDEXES, "no-index", "trusted-host", "proxy", "timeout", "retries")
CERTIFICATES = ("cert", "client-cert")
SYNONYMS = {"default-timeout": "timeout"}
# uv takes a folder that does not exist for an index without packages.
NO_INDEX = "file:///no-index"


def pip_settings(listing: str) -> dict[str, str]:
    """What decides where pip gets packages from, of the output of ``pip config list``.

    Lines are SECTION.KEY='VALUE'. Those of ``install`` beat those of ``global``, and environment variables beat both.
    """
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in listing.splitlines():
            place, equals, value = line.partition("=")
            if equals and place.startswith(f"{section}."):
                key = place.removeprefix(f"{section}.").replace("_", "-")
                key = SYNONYMS.get(key, key)
                if key in SETTINGS + CERTIFICATES:
                    found[key] = str(ast.literal_eval(value))
    return found


def answers(url: str) -> bool:
    """Whether a package index has torch; asked for five seconds at most, as uv tries for minutes."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/torch/", method="HEAD"), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def local_path(word: str) -> str:
    """The folder that a word of INDEXES names; "" for one that is on another machine."""
    return unquote(urlsplit(word).path).rstrip("/") if word.startswith(("file://", "/")) else ""


def without_missing(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings without folders that do not exist: pip passes them over, uv stops at them."""

    def kept(value: str) -> str:
        return " ".join(word for word in value.split() if not (path := local_path(word)) or Path(path).exists())

    return {key: kept(value) if key in INDEXES else value for key, value in settings.items()}


def uv_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Environment variables with which uv finds what pip with these settings finds."""
    # As pip does: the best version counts, whichever index has it.
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}

    def words(key: str, joint: str) -> str:
        return joint.join(settings.get(key, "").split())

    if settings.get("no-index", "").lower() in ("1", "on", "t", "true", "y", "yes"):
        found["UV_DEFAULT_INDEX"] = NO_INDEX
    else:
        found["UV_DEFAULT_INDEX"] = words("index-url", " ")
        found["UV_INDEX"] = words("extra-index-url", " ")
    found["UV_FIND_LINKS"] = words("find-links", ",")
    found["UV_INSECURE_HOST"] = words("trusted-host", " ")
    if seconds := re.match(r"\d+", settings.get("timeout", "")):
        found["UV_HTTP_TIMEOUT"] = seconds[0]
    found["UV_HTTP_RETRIES"] = settings.get("retries", "")
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        found[name] = settings.get("proxy", "")
    found["SSL_CERT_FILE"] = settings.get("cert", "")
    found["SSL_CLIENT_CERT"] = settings.get("client-cert", "")
    return {name: value for name, value in found.items() if value}


def uv_step(line: str) -> str | None:
    """What a line that uv prints says of how far it is; None if it says nothing of that."""
    if found := re.match(r"Downloading (\S+) \(([^)]+)\)", line):
        return f"downloading {found[1]} ({found[2]})"
    if found := re.match(r"(?:Resolved|Prepared|Installed) \d+ packages? in", line):
        return {"R": "fetching", "P": "unpacking", "I": "compiling"}[line[0]]
    return None


def uv_error(lines: Iterable[str]) -> str:
    """uv's last error with its causes in one line; "" if it names none."""
    found: list[str] = []
    for line in lines:
        if error := re.match(r"error: (.+)", line):
            found = [error[1]]
        elif found and (cause := re.match(r"\s+cause: (.+)", line)):
            found.append(cause[1])
    return ": ".join(part.rstrip(".:") for part in found)
