"""What holds for the machine that runs Ansible, whatever the inventory and the command line say of other hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: controller
short_description: Run local tasks as this user, with this Python
description:
  - Tasks on C(localhost) read the plan, write the state directory and speak to the cluster's API. They run in the
    account of this process with its Python, also where C(localhost) is a host of the inventory (AWX), where C(-u),
    C(--become) or C(ansible_become) is meant for the hosts, and where this account has no home, or no name.
  - Hosts with a local connection keep temporary files in the folder that Ansible makes for this run alone, and have
    this Python where the inventory names none. Others keep theirs where C(ansible_remote_tmp) says.
"""

import sys
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.inventory.helpers import sort_groups
from ansible.inventory.host import Host
from ansible.plugins.loader import vars_loader
from ansible.plugins.vars import BaseVarsPlugin

CONTROLLER = "localhost"


class VarsModule(BaseVarsPlugin):
    """See DOCUMENTATION. It is asked for each source of the inventory, and for the playbook's folder."""

    REQUIRES_ENABLED = False

    def get_vars(self, loader: Any, path: str, entities: Any, cache: bool = True) -> dict[str, Any]:
        """Variables of the hosts or groups in ``entities``."""
        super().get_vars(loader, path, entities)
        found: dict[str, Any] = {}
        for entity in entities if isinstance(entities, list) else [entities]:
            if isinstance(entity, Host) and entity.name == CONTROLLER:
                found |= {
                    "ansible_connection": "local",
                    "ansible_become": False,
                    "ansible_python_interpreter": sys.executable,
                    "ansible_remote_tmp": C.DEFAULT_LOCAL_TMP,
                }
            elif isinstance(entity, Host):
                found |= _of_local(entity, loader, path)
        return found


def _of_local(host: Host, loader: Any, path: str) -> dict[str, Any]:
    """What holds for a host if the command line, the host file, or variables' files at ``path`` make it a local one."""
    groups = sort_groups(host.get_groups())
    files = vars_loader.get("host_group_vars")
    said: dict[str, Any] = {"ansible_connection": context.CLIARGS.get("connection", "")}
    for owner in (*groups, host):
        said |= {**owner.vars, **files.get_vars(loader, path, [owner])}
    if str(said["ansible_connection"]).rpartition(".")[2] != "local":
        return {}
    python = {} if "ansible_python_interpreter" in said else {"ansible_python_interpreter": sys.executable}
    return {"ansible_remote_tmp": C.DEFAULT_LOCAL_TMP, **python}
