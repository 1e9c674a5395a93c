"""Versions that stand in two files are the same in both, and nothing is used that no file pins."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import ansible_collections
import yaml

COLLECTIONS = Path(next(iter(ansible_collections.__path__)))
NAME = re.compile(r"\b([a-z_][a-z0-9_]*)\.([a-z_][a-z0-9_]*)\.[a-z_][a-z0-9_]*\b")
# A comment may mention what is not used.
COMMENT = re.compile(r"(^|\s)#.*$", re.MULTILINE)


def tracked(root: Path, *patterns: str) -> list[Path]:
    """Files of the project that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=True).stdout.splitlines()
    return [root / name for name in names if (root / name).is_file()]


def carried(collection: str) -> str | None:
    """Version of a collection in the installed `ansible` package; none if there is no such collection."""
    manifest = COLLECTIONS.joinpath(*collection.split("."), "MANIFEST.json")
    return json.loads(manifest.read_text())["collection_info"]["version"] if manifest.exists() else None


def used(root: Path) -> set[str]:
    """Collections whose modules, filters, lookups or connections the YAML files and action plugins name."""
    yaml_files = tracked(root, "*.yml", "*.yaml", "*.j2")
    text = "\n".join(COMMENT.sub("", path.read_text()) for path in yaml_files if path.name != "requirements.yml")
    # In Python a collection's module is named by a string; `from ansible.utils.vars import` is ansible-core itself.
    plugins = "\n".join(path.read_text() for path in tracked(root, "python_plugins/*.py"))
    names = NAME.finditer(text + "\n".join(re.findall(r"[\"'][a-z0-9_.]+[\"']", plugins)))
    return {name for name in {f"{found[1]}.{found[2]}" for found in names} if carried(name)}


def test_collections_that_are_used_are_pinned_to_the_locked_versions(root: Path) -> None:
    pinned = {
        entry["name"]: entry["version"]
        for entry in yaml.safe_load((root / "requirements.yml").read_text())["collections"]
    }
    assert set(pinned) == used(root)
    assert pinned == {name: carried(name) for name in pinned}


def test_awx_finds_the_same_collections(root: Path) -> None:
    assert (root / "collections" / "requirements.yml").read_text() == (root / "requirements.yml").read_text()


def test_the_changelog_ends_at_the_version_of_the_project(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    headings = re.findall(r"^## \[(\S+?)\]", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1:2] in ([], [project["version"]])


def test_the_command_tells_the_version_of_the_project(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    said = subprocess.run(
        [str(root / "heteroserve"), "--version"], capture_output=True, encoding="utf-8", check=True
    ).stdout
    assert said == f"heteroserve {project['version']}\n"
