#!/usr/bin/python
"""Ansible module: what has to happen to a host before SSH answers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: metal_decision
short_description: Compare a host without an operating system with what is wanted
description:
  - Runs on the controller, with what C(community.general.redfish_info) read of the host's BMC. Changes nothing.
  - Fails with a sentence for each thing that is refused, and in a report for each thing that differs.
options:
  host: {description: Name of the host., type: str, required: true}
  facts: {description: "C(redfish_facts) of the BMC, all together.", type: dict, required: true}
  wanted: {description: "What the inventory asks for: C(Wanted) in metal/decision.py.", type: dict, required: true}
  os_release: {description: "The host's /etc/os-release. Empty if it did not answer by SSH.", type: str, default: ""}
  why: {description: Why it did not answer., type: str, default: ""}
  report: {description: Whether the host is only to be reported., type: bool, default: false}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Decide what happens to the host
  metal_decision:
    host: r760-1
    facts: "{{ found.redfish_facts }}"
    wanted: {os: ubuntu-24.04, disk: boss}
"""

RETURN = r"""
steps: {description: "What has to happen, in order: firmware, bios, install, eject.", returned: success, type: list}
bios: {description: BIOS attributes to set., returned: success, type: dict}
firmware: {description: "Components to update: component, found, wanted, file.", returned: success, type: list}
disk: {description: "How the installer finds its disk: by and pattern.", returned: success, type: dict}
images: {description: Addresses of images in the order in which they are inserted., returned: success, type: list}
answers: {description: Whether the host answered by SSH., returned: success, type: bool}
service_tag: {description: Of the host., returned: success, type: str}
report: {description: The host in lines., returned: where something differs or it is asked for, type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.faults import listing
from ansible.module_utils.heteroserve.common.records import from_dict, to_dict
from ansible.module_utils.heteroserve.metal.decision import Answer, Wanted, decide, release, report
from ansible.module_utils.heteroserve.metal.machine import machine


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "facts": {"type": "dict", "required": True},
            "wanted": {"type": "dict", "required": True},
            "os_release": {"type": "str", "default": ""},
            "why": {"type": "str", "default": ""},
            "report": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        wanted = from_dict(Wanted, given["wanted"])
    except ValueError as error:
        module.fail_json(msg=f"bare metal: {error}")
    found = machine(given["facts"])
    answer = Answer(release(given["os_release"]), given["why"])
    decision = decide(found, wanted, answer)
    lines = report(given["host"], found, decision, answer)
    if given["report"] and (decision.differences or decision.refusals):
        module.fail_json(msg=lines)
    if decision.refusals and not given["report"]:
        module.fail_json(msg=listing(f"This host ({found.model})", list(decision.refusals), "nothing was changed"))
    result = {**to_dict(decision), "answers": bool(answer.os), "service_tag": found.service_tag}
    module.exit_json(changed=False, **result, **({"report": lines} if given["report"] or decision.differences else {}))


if __name__ == "__main__":
    main()
