"""A password that is made once and kept in a file; in a check run one that is not there is made up, and not kept."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kept_password
short_description: A random password that is kept in a file
description:
  - Does what P(ansible.builtin.password#lookup) does, which writes its file in a check run too.
  - Where the inventory has a state host, a password is there before anybody gets it.
options:
  _terms: {description: The file., required: true}
  length: {description: Characters of the password., type: int, required: true}
  chars: {description: Kinds of characters., type: list, elements: str, required: true}
"""

EXAMPLES = r"""
token: "{{ lookup('kept_password', state_dir ~ '/secrets/token', length=64, chars=['hexdigits']) }}"
"""

RETURN = r"""
_raw: {description: The password., type: list, elements: str}
"""

import importlib
import os
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

ROOT = Path(__file__).resolve().parents[2]


def shared(name: str) -> Any:
    """A file of the shared code, which Ansible only hands to modules."""
    folder = str(ROOT / "python_plugins" / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    return importlib.import_module(f"ansible.module_utils.heteroserve.{name}")


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        """One password for each file."""
        check = bool((variables or {}).get("ansible_check_mode"))
        files = ["/dev/null" if check and not os.path.exists(term) else term for term in terms]
        new = [term for term in terms if not os.path.exists(term)]
        made = lookup_loader.get("ansible.builtin.password", loader=self._loader, templar=self._templar)
        found = list(made.run(files, variables, **options))
        if not check and ((variables or {}).get("groups") or {}).get("state"):
            self._keep(terms, new)
        return found

    @staticmethod
    def _keep(terms: list[str], new: list[str]) -> None:
        """Have the state host be up to date: another process may have made one of them a moment ago."""
        for term in terms:
            state = Path(term).parent.parent
            fault = shared("backup.keeper").ask(state)
            if fault is None and term in new:
                fault = f"{term} was made by a run that has not locked {state}"
            if fault:
                raise AnsibleError(fault)
