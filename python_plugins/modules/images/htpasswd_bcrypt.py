#!/usr/bin/python
"""Ansible module: one account in a password file, hashed by bcrypt."""

from __future__ import annotations

DOCUMENTATION = r"""
module: htpasswd_bcrypt
short_description: Keep one account in a password file, hashed by bcrypt
description:
  - Writes a file as servers read it that take bcrypt only. The hash comes from the host's own libcrypt, so nothing
    has to be installed; P(community.general.htpasswd#module) needs passlib and bcrypt on the host.
  - The file is rewritten only if the password in it is another one.
options:
  path: {description: The file; it holds this account only., type: path, required: true}
  name: {description: Name of the account., type: str, required: true}
  password: {description: Its password., type: str, required: true}
  cost:
    description: Cost of bcrypt. A server computes it for every request, and a long random password needs no high one.
    type: int
    default: 5
extends_documentation_fragment: [files]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the registry asks for the password
  htpasswd_bcrypt:
    path: /etc/heteroserve/registry/htpasswd
    name: heteroserve
    password: "{{ registry_password }}"
    mode: "0640"
"""

RETURN = r""" # """

import ctypes
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import write_whole

# libxcrypt: the first name where it also replaces glibc's, the second where it does not.
LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2")


def library() -> ctypes.CDLL:
    """The host's libcrypt. Raises OSError if there is none that knows bcrypt."""
    for name in LIBRARIES:
        try:
            found = ctypes.CDLL(name)
            found.crypt.restype = found.crypt_gensalt.restype = ctypes.c_char_p
            return found
        except (OSError, AttributeError):
            continue
    raise OSError(f"none of {', '.join(LIBRARIES)} knows bcrypt on this host: install libcrypt1 (Debian) or libxcrypt")


def hashed(password: str, setting: str) -> str:
    """bcrypt of ``password`` with cost and salt of ``setting``, which may be a whole hash; "" if it is no setting."""
    found = library().crypt(password.encode(), setting.encode())
    return (found or b"").decode()


def fresh(password: str, cost: int) -> str:
    """bcrypt of ``password`` with a new salt."""
    salt = library().crypt_gensalt(b"$2b$", ctypes.c_ulong(cost), os.urandom(16), 16)
    return hashed(password, salt.decode())


def right(line: str, name: str, password: str, cost: int) -> bool:
    """Whether a line of a password file is for this account, password and cost."""
    known, _, digest = line.strip().partition(":")
    return known == name and digest.startswith(f"$2b${cost:02}$") and hashed(password, digest) == digest


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "cost": {"type": "int", "default": 5},
        },
        add_file_common_args=True,
        supports_check_mode=True,
    )
    path, name, password, cost = (module.params[key] for key in ("path", "name", "password", "cost"))
    file = Path(path)
    try:
        lines = file.read_text().splitlines() if file.exists() else []
        changed = len(lines) != 1 or not right(lines[0], name, password, cost)
        if changed and not module.check_mode:
            write_whole(file, f"{name}:{fresh(password, cost)}\n")
    except OSError as error:
        module.fail_json(msg=str(error))
    if file.exists():
        changed = module.set_fs_attributes_if_different(module.load_file_common_arguments(module.params), changed)
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
