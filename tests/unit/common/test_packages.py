"""uv finds packages where pip's configuration says, and its output is told in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from heteroserve.common.packages import NO_INDEX, pip_settings, uv_environment, uv_error, without_missing

LISTING = """\
:env:.cert='/etc/ca.pem'
:env:.default-timeout='180'
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


def test_uv_is_told_what_pip_is_told() -> None:
    found = uv_environment(pip_settings(LISTING))
    assert found == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://me:pass@one.example/simple file:///srv/pypi/simple",
        "UV_FIND_LINKS": "/srv/wheels",
        "UV_HTTP_TIMEOUT": "180",
        "SSL_CERT_FILE": "/etc/ca.pem",
    }


@pytest.mark.parametrize(
    ("settings", "variables"),
    [
        ({"find-links": "/a\n/b"}, {"UV_FIND_LINKS": "/a,/b"}),
        ({"trusted-host": "one.example\ntwo.example:8080"}, {"UV_INSECURE_HOST": "one.example two.example:8080"}),
        ({"proxy": "http://p:3128"}, {"HTTP_PROXY": "http://p:3128", "HTTPS_PROXY": "http://p:3128"}),
        ({"client-cert": "/etc/me.pem", "timeout": "7.5"}, {"SSL_CLIENT_CERT": "/etc/me.pem", "UV_HTTP_TIMEOUT": "7"}),
        ({"retries": "1"}, {"UV_HTTP_RETRIES": "1"}),
        (
            {"no-index": "yes", "index-url": "https://a", "extra-index-url": "https://b", "find-links": "/w"},
            {"UV_DEFAULT_INDEX": NO_INDEX, "UV_FIND_LINKS": "/w"},
        ),
        ({}, {}),
    ],
)
def test_each_setting_has_its_variable(settings: dict[str, str], variables: dict[str, str]) -> None:
    assert uv_environment(settings) == {"UV_INDEX_STRATEGY": "unsafe-best-match", **variables}


def test_a_folder_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    there = f"file://{tmp_path}"
    settings = {"extra-index-url": f"{there} file:///none/simple https://a", "find-links": "/none", "proxy": "/none"}
    assert without_missing(settings) == {"extra-index-url": f"{there} https://a", "find-links": "", "proxy": "/none"}


def test_an_error_and_its_causes_are_one_line() -> None:
    said = ["Resolved 2 packages in 217ms", "error: Failed to download `a==1`", "  cause: Hash mismatch for `a==1`", ""]
    assert uv_error([*said, "         Expected:"]) == "Failed to download `a==1`: Hash mismatch for `a==1`"
    assert uv_error(["Resolved 2 packages in 217ms"]) == ""
