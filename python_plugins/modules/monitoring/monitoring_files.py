#!/usr/bin/python
"""Ansible module: what Prometheus, Alertmanager and HeteroServe's exporters are configured with."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitoring_files
short_description: Work out the files of monitoring from inventory and plan
description:
  - Returns the content of each file; writes none. The targets follow from hosts and cells, the rules from what is
    there to be judged, the receivers from the inventory.
  - Fails with one sentence for each receiver or alert that cannot work.
options:
  host: {description: The host that Prometheus runs on., type: str, required: true}
  hosts:
    description: "Of each host of the inventory: C(address), C(groups), C(vendors) of its GPUs, C(bmc)."
    type: dict
    required: true
  plan: {description: The plan., type: dict, required: true}
  folder: {description: Where the files will lie., type: path, required: true}
  ports: {description: "Ports of exporters, by job.", type: dict, default: {}}
  interval: {description: Seconds between two reads of a target., type: int, default: 15}
  retention_days: {description: Days that are kept., type: int, default: 30}
  cluster: {description: Whether there is a K3s cluster to read., type: bool, default: false}
  operator_namespace: {description: Namespace of KubeRay's operator., type: str, default: kuberay-operator}
  receivers:
    description: "Who is told of alerts. A key that holds a secret says only that it is set: C(token: set)."
    type: list
    elements: dict
    default: []
  alerts: {description: "Of single alerts another threshold, duration, or that they are off.", type: dict, default: {}}
  group_wait: {description: Seconds that alerts wait for others that tell the same., type: int, default: 30}
  docs: {description: "Address of the documentation, for links to runbooks.", type: str, required: true}
  energy_price: {description: Price of a kilowatt hour., type: float, default: 0}
  bmc_user: {description: User of the iDRACs. Empty if they are not asked., type: str, default: ""}
  bmc_ca: {description: Certificate authority of the iDRACs., type: str, default: ""}
  endpoint: {description: "The endpoint, without C(/v1).", type: str, required: true}
  needs_key: {description: Whether the endpoint asks for a key., type: bool, default: false}
  question: {description: The usual known-answer question., type: str, default: What is the capital of France?}
  answer: {description: Regular expression of its answer., type: str, default: Paris}
  checks: {description: "Other questions, by model.", type: dict, default: {}}
  check_interval: {description: Seconds between two known-answer checks., type: int, default: 60}
  check_timeout: {description: Seconds that one answer may take., type: int, default: 120}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Read what monitoring is configured with
  monitoring_files:
    host: "{{ inventory_hostname }}"
    hosts: {gpu-1: {address: 10.0.0.11, groups: [serving], vendors: [nvidia]}}
    plan: "{{ plan }}"
    folder: /etc/heteroserve/monitoring
    docs: https://example.com/docs
    endpoint: http://10.0.0.2:8080
"""

RETURN = r"""
targets: {description: For each job the content of its file_sd file., returned: success, type: dict}
prometheus: {description: Configuration of Prometheus., returned: success, type: dict}
rules: {description: Recording and alerting rules., returned: success, type: dict}
alertmanager: {description: Configuration of Alertmanager., returned: success, type: dict}
secret_names: {description: Names of the files with the receivers' secrets., returned: success, type: list}
exporter: {description: Configuration of HeteroServe's own exporter., returned: success, type: dict}
plan_text: {description: "The plan as metrics, in Prometheus's text format.", returned: success, type: str}
size: {description: "Expected C(series), C(memory_bytes) and C(disk_bytes).", returned: success, type: dict}
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.facts.accelerators import CARDS
from ansible.module_utils.heteroserve.health.endpoint import targets as health_targets
from ansible.module_utils.heteroserve.monitoring import (
    alertmanager,
    exposition,
    plan_metrics,
    prometheus,
    rules,
    sizing,
    targets,
)


def watts(plan: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Power limits of the GPUs that cells use, by host and index, as their cards say."""
    found: dict[str, dict[str, float]] = {}
    for cell in plan["cells"]:
        card = CARDS.get(cell["accelerator"])
        if card is None:
            continue
        for replica in cell["replicas"]:
            for host, devices in zip(replica["hosts"], replica["devices"], strict=True):
                found.setdefault(host, {}).update({str(device): float(card.tdp) for device in devices})
    return found


def exporter(asked: dict[str, Any], ports: targets.Ports) -> dict[str, Any]:
    """Configuration of HeteroServe's own exporter."""
    plan, folder = asked["plan"], asked["folder"]
    usual = {"question": asked["question"], "answer": asked["answer"]}
    servers = [(name, host) for name, host in asked["hosts"].items() if "k3s_server" in host["groups"]]
    found: dict[str, Any] = {
        "address": "127.0.0.1",
        "port": ports.exporter,
        "plan_file": f"{folder}/plan.prom",
        "health": {
            "interval_s": asked["check_interval"],
            "timeout_s": asked["check_timeout"],
            "key_file": f"{folder}/health-key" if asked["needs_key"] else "",
            "targets": [
                asdict(one)
                for one in health_targets(plan, asked["endpoint"], usual, asked["checks"], asked["needs_key"])
            ],
            "hosts": {cell["name"]: cell["hosts"][0] for cell in plan["cells"]},
            "certificates": [
                {"host": name, "address": f"{host['address']}:6443", "ca_file": f"{folder}/k3s-ca.crt"}
                for name, host in servers
                if asked["cluster"]
            ],
        },
    }
    if asked["bmc_user"]:
        found["power"] = {
            "interval_s": 60,
            "user": asked["bmc_user"],
            "password_file": f"{folder}/bmc-password",
            "ca_file": asked["bmc_ca"],
            "hosts": {name: host["bmc"] for name, host in asked["hosts"].items() if host.get("bmc")},
        }
    return found


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "hosts": {"type": "dict", "required": True},
            "plan": {"type": "dict", "required": True},
            "folder": {"type": "path", "required": True},
            "ports": {"type": "dict", "default": {}},
            "interval": {"type": "int", "default": 15},
            "retention_days": {"type": "int", "default": 30},
            "cluster": {"type": "bool", "default": False},
            "operator_namespace": {"type": "str", "default": "kuberay-operator"},
            "receivers": {"type": "list", "elements": "dict", "default": []},
            "alerts": {"type": "dict", "default": {}},
            "group_wait": {"type": "int", "default": 30},
            "docs": {"type": "str", "required": True},
            "energy_price": {"type": "float", "default": 0},
            "bmc_user": {"type": "str", "default": ""},
            "bmc_ca": {"type": "str", "default": ""},
            "endpoint": {"type": "str", "required": True},
            "needs_key": {"type": "bool", "default": False, "no_log": False},
            "question": {"type": "str", "default": "What is the capital of France?"},
            "answer": {"type": "str", "default": "Paris"},
            "checks": {"type": "dict", "default": {}},
            "check_interval": {"type": "int", "default": 60},
            "check_timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    asked = module.params
    faults = [*alertmanager.faults(asked["receivers"]), *rules.faults(asked["alerts"])]
    if faults:
        module.fail_json(msg="; ".join(faults), faults=faults)
    ports = targets.Ports(**{name: int(port) for name, port in asked["ports"].items()})
    hosts = {
        name: targets.Host(host["address"], tuple(host["groups"]), tuple(host["vendors"]), host.get("bmc") or "")
        for name, host in asked["hosts"].items()
    }
    found = targets.targets(
        targets.Wanted(
            asked["host"],
            hosts,
            asked["plan"],
            ports,
            bool(asked["bmc_user"]),
            asked["cluster"],
            asked["operator_namespace"],
        )
    )
    samples = plan_metrics.samples(asked["plan"], watts(asked["plan"]), asked["energy_price"])
    module.exit_json(
        changed=False,
        targets=found,
        prometheus=prometheus.configuration(
            prometheus.Settings(asked["folder"], asked["interval"], ports.alertmanager)
        ),
        rules=rules.rules(found, asked["alerts"], asked["docs"]),
        alertmanager=alertmanager.configuration(
            asked["receivers"], alertmanager.Settings(asked["folder"], asked["group_wait"])
        ),
        secret_names=sorted(alertmanager.secret_files(asked["receivers"])),
        exporter=exporter(asked, ports),
        plan_text=exposition.render(samples, plan_metrics.HELP),
        size=asdict(sizing.size(found, len(hosts), asked["interval"], asked["retention_days"])),
    )


if __name__ == "__main__":
    main()
