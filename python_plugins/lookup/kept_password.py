"""A password that is made once and kept in a file; in a check run one that is not there is made up, and not kept."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kept_password
short_description: A random password that is kept in a file
description:
  - Does what P(ansible.builtin.password#lookup) does, which writes its file in a check run too.
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

import os
from typing import Any

from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        """One password for each file."""
        check = bool((variables or {}).get("ansible_check_mode"))
        files = ["/dev/null" if check and not os.path.exists(term) else term for term in terms]
        made = lookup_loader.get("ansible.builtin.password", loader=self._loader, templar=self._templar)
        return list(made.run(files, variables, **options))
