#!/usr/bin/python
"""Ansible module: which images archives hold."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_archive
short_description: Read which container images archives hold
description:
  - Reads docker-archives and oci-archives without unpacking them, and says of each image its full name and the digest
    of its configuration, which names its content.
  - Fails, with all faults at once, where an archive cannot be read, names no image, or two have the same name.
options:
  archives:
    description: The archives.
    type: list
    elements: dict
    required: true
    suboptions:
      path: {description: The archive., type: path, required: true}
      name: {description: "Name of the image, for an archive that names none.", type: str}
  machine:
    description: Architecture of the hosts, as C(uname -m) names it, to choose by where an image is for several.
    type: str
    default: x86_64
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Read the archives' contents
  image_archive:
    archives: [{path: /srv/airgap/images/ray.tar}]
  delegate_to: localhost
"""

RETURN = r"""
images:
  description: archive, transport, selector, name, target, config, layers and bytes of each image.
  returned: success
  type: list
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.faults import listing
from ansible.module_utils.heteroserve.images.archives import ArchivedImage, ArchiveError, collisions, read_archive


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "archives": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"path": {"type": "path", "required": True}, "name": {"type": "str"}},
            },
            "machine": {"type": "str", "default": "x86_64"},
        },
        supports_check_mode=True,
    )
    images: list[ArchivedImage] = []
    faults: list[str] = []
    for archive in module.params["archives"]:
        try:
            images += read_archive(Path(archive["path"]), archive["name"], module.params["machine"])
        except ArchiveError as error:
            faults.append(str(error))
    faults += collisions(images)
    if faults:
        module.fail_json(msg=listing("The list of archives", faults, "nothing was pushed"))
    module.exit_json(changed=False, images=[{**asdict(image), "target": image.target} for image in images])


if __name__ == "__main__":
    main()
