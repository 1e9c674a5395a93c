#!/usr/bin/python
"""Ansible module: where the image of each engine comes from."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_build_sources
short_description: Decide where the image of each engine comes from
description:
  - Runs where the project lies, and changes nothing. Fails, with all faults at once, where an image can come from
    nowhere.
options:
  builds: {description: Engines that need an image., type: list, elements: str, required: true}
  root: {description: Folder of the project with images and requirements., type: path, required: true}
  references: {description: Images that are given; by build., type: dict, default: {}}
  archived: {description: File that says which archives the registry has., type: path, required: true}
  bases: {description: Images to build on instead of the Containerfile's; by build., type: dict, default: {}}
  pushed: {description: References of images that were built and pushed; by build., type: dict, default: {}}
  ray_version: {description: Ray of given and archived images; empty for that of the lock., type: str, default: ""}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Read the sources of the images
  image_build_sources:
    builds: [vllm-cpu]
    root: /srv/heteroserve
    archived: /srv/state/images.json
"""

RETURN = r"""
images:
  description: >-
    kind, ray_version and inputs by build; reference too where nothing is built, else base, the file containerfile
    and the texts of the files that it copies in sources, by their path in the project.
  returned: success
  type: dict
record: {description: "reference, ray_version and inputs by build, as far as known.", returned: success, type: dict}
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.faults import listing
from ansible.module_utils.heteroserve.images.builds import Recipe, choose, copied, default_base, locked_version


def image(module: AnsibleModule, build: str, archived: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What is known of one build's image. Raises ValueError."""
    root = Path(module.params["root"])
    file, lock_file = root / "images" / build / "Containerfile", root / "requirements" / f"{build}.txt"
    source = choose(build, module.params["references"], archived, [build] if file.exists() else [])
    lock = lock_file.read_text() if lock_file.exists() else ""
    if source.kind != "build":
        version = module.params["ray_version"] or (locked_version(lock, "ray") if lock else "")
        if not version:
            raise ValueError(f"{build}: what its image has of Ray is not known: set images_ray_version")
        return {
            "kind": source.kind,
            "ray_version": version,
            "inputs": f"{source.kind} {source.reference.rpartition('@')[2]}",
            "reference": source.reference,
        }
    text = file.read_text()
    sources = {name: (root / name).read_text() for name in copied(text)}
    base = module.params["bases"].get(build) or default_base(text)
    recipe = Recipe(text, base, tuple(sources.values()))
    return {
        "kind": source.kind,
        "ray_version": locked_version(lock, "ray"),
        "inputs": recipe.digest,
        "containerfile": str(file),
        "base": recipe.base,
        "sources": sources,
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "builds": {"type": "list", "elements": "str", "required": True},
            "root": {"type": "path", "required": True},
            "references": {"type": "dict", "default": {}},
            "archived": {"type": "path", "required": True},
            "bases": {"type": "dict", "default": {}},
            "pushed": {"type": "dict", "default": {}},
            "ray_version": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["archived"])
    archived = json.loads(path.read_text()) if path.exists() else {}
    images: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for build in module.params["builds"]:
        try:
            images[build] = image(module, build, archived)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        module.fail_json(msg=listing("The list of engine images", faults, "nothing was built"))
    known = {build: one.get("reference") or module.params["pushed"].get(build) for build, one in images.items()}
    record = {
        build: {"reference": known[build], "ray_version": one["ray_version"], "inputs": one["inputs"]}
        for build, one in images.items()
        if known[build]
    }
    module.exit_json(changed=False, images=images, record=record)


if __name__ == "__main__":
    main()
