#!/usr/bin/python
"""Ansible module: KubeRay's CRDs as its chart has them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kuberay_crds
short_description: Apply or delete the CRDs of KubeRay's chart
description:
  - Helm installs what lies in a chart's folder C(crds) once and never updates it, and these are larger than
    client-side apply takes. So they are applied on the server, before the release, and waited for.
  - Fails before anything is changed where the cluster has a KubeRay of someone else.
  - P(kubernetes.core.k8s#module) can apply them too, and reports changes as well as this. It takes three times as long
    (15 s of a processor against 5 s, in every run), because it reads these three megabytes of YAML without libyaml. It
    does not say why the API refuses to serve a kind, and adds no labels to what it reads from a file.
  - Notes on each CRD which chart it came from and what the API made of it. Where all of them are still so, the chart's
    YAML is not parsed and nothing is sent.
  - C(absent) leaves them where objects of their kinds are left in any namespace, and says so in C(kept).
options:
  chart: {description: The chart's file. Needed for C(present)., type: path}
  release: {description: Name of the Helm release that may own them., type: str, required: true}
  namespace: {description: Its namespace., type: str, required: true}
  emptied:
    description: Namespace whose objects do not keep the CRDs with C(absent), because they are removed before.
    type: str
    default: ""
  state: {description: What to reach., type: str, choices: [present, absent], default: present}
  compare: {description: "Compare every CRD with the chart, whatever its note says.", type: bool, default: false}
  timeout: {description: Seconds to wait for the API., type: int, default: 60}
extends_documentation_fragment: [kubeconfig]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the API knows what KubeRay knows
  kuberay_crds:
    kubeconfig: "{{ state_dir }}/kubeconfig"
    chart: "{{ state_dir }}/charts/kuberay-operator-1.7.0.tgz"
    release: kuberay-operator
    namespace: kuberay-operator
"""

RETURN = r"""
names: {description: CRDs that were applied or removed., returned: success, type: list}
kept: {description: "Why they were not removed; empty if they were.", returned: with C(absent), type: str}
"""

import hashlib
import tarfile
import time
from importlib import import_module
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.api import connect, dynamic, kubernetes
from ansible.module_utils.heteroserve.cluster.kuberay import (
    APPLIED,
    GROUP,
    applied_note,
    as_applied,
    conflict,
    content,
    established,
    in_use,
    is_ours,
    not_established,
    own_labels,
)

FIELD_MANAGER = "heteroserve"
# Of the note alone: what its own manager no longer names, an apply takes away.
NOTE_MANAGER = "heteroserve-note"
POLL_S = 0.5


def chart_files(path: str) -> list[bytes]:
    """Files in the folder crds of a packed chart, one for each CRD. Raises ``ValueError`` if there are none."""
    found = []
    with tarfile.open(path) as archive:
        for member in archive:
            parts = member.name.split("/")
            stream = archive.extractfile(member) if parts[1:2] == ["crds"] and parts[-1].endswith(".yaml") else None
            if stream:
                found.append(stream.read())
    if not found:
        raise ValueError(f"{path} has no CRDs in its folder crds: it is not KubeRay's chart")
    return found


def parse_crds(files: list[bytes]) -> list[dict[str, Any]]:
    """The CRDs that the files describe."""
    yaml = import_module("yaml")
    # Three megabytes of YAML: the C parser takes a tenth of the time, where it is there.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [one for file in files for one in yaml.load_all(file, loader) if one]


class Api:
    """The cluster as far as CRDs go, as plain dictionaries."""

    def __init__(self, kubeconfig: str) -> None:
        self._dynamic = dynamic(connect(kubeconfig))
        self._crd = self._kind("apiextensions.k8s.io/v1", "CustomResourceDefinition")
        self._refused = kubernetes().ApiException

    def _kind(self, version: str, kind: str) -> Any:
        return self._dynamic.resources.get(api_version=version, kind=kind)

    def crds(self) -> dict[str, dict[str, Any]]:
        """All CRDs of KubeRay's group, by name."""
        found = self._dynamic.get(self._crd).to_dict()["items"]
        return {one["metadata"]["name"]: one for one in found if one["spec"]["group"] == GROUP}

    def deployments(self) -> list[dict[str, Any]]:
        """All Deployments of the cluster."""
        found: list[dict[str, Any]] = self._dynamic.get(self._kind("apps/v1", "Deployment")).to_dict()["items"]
        return found

    def apply(self, crd: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Apply a CRD; what it is, or would be, then."""
        found: dict[str, Any] = self._dynamic.server_side_apply(
            self._crd,
            body=crd,
            name=crd["metadata"]["name"],
            field_manager=FIELD_MANAGER,
            force_conflicts=True,
            **({"dry_run": "All"} if dry_run else {}),
        ).to_dict()
        return found

    def note(self, crd: dict[str, Any], text: str) -> None:
        """Write the note on a CRD."""
        metadata = {"name": crd["metadata"]["name"], "annotations": {APPLIED: text}}
        self._dynamic.server_side_apply(
            self._crd,
            body={"apiVersion": crd["apiVersion"], "kind": crd["kind"], "metadata": metadata},
            name=metadata["name"],
            field_manager=NOTE_MANAGER,
            force_conflicts=True,
        )

    def objects(self, crd: dict[str, Any]) -> list[dict[str, Any]]:
        """All objects of the CRD's kind, in all namespaces."""
        version = next(one["name"] for one in crd["spec"]["versions"] if one["storage"])
        try:
            resource = self._kind(f"{GROUP}/{version}", crd["spec"]["names"]["kind"])
            found: list[dict[str, Any]] = self._dynamic.get(resource).to_dict()["items"]
        except import_module("kubernetes.dynamic.exceptions").ResourceNotFoundError:
            return []
        return found

    def remove(self, name: str) -> None:
        """Have a CRD deleted."""
        try:
            self._dynamic.delete(self._crd, name=name)
        except self._refused as refusal:
            if refusal.status != 404:
                raise


def present(module: AnsibleModule, api: Api, before: dict[str, dict[str, Any]], asked: dict[str, Any]) -> None:
    """Apply what differs from the chart, and wait until the API serves the kinds."""
    files, timeout = chart_files(asked["chart"]), asked["timeout"]
    digest = hashlib.sha256(b"".join(files)).hexdigest()
    unchanged = [] if asked["compare"] else as_applied(before.values(), digest)
    if len(unchanged) == len(files):
        module.exit_json(changed=False, names=sorted(unchanged))
    wanted = [own_labels(one) for one in parse_crds(files)]
    changed = False
    for crd in wanted:
        after = api.apply(crd, module.check_mode)
        changed |= content(before.get(crd["metadata"]["name"])) != content(after)
        if not module.check_mode:
            api.note(after, applied_note(after, digest))
    names = sorted(crd["metadata"]["name"] for crd in wanted)
    end = time.monotonic() + timeout
    while not module.check_mode:
        found = api.crds()
        slow = [found[name] for name in names if name in found and not established(found[name])]
        if not slow:
            break
        if time.monotonic() > end:
            said = "; ".join(map(not_established, slow))
            module.fail_json(msg=f"after {timeout} s the API does not serve KubeRay's CRDs: {said}", names=names)
        time.sleep(POLL_S)
    module.exit_json(changed=changed, names=names)


def absent(module: AnsibleModule, api: Api, release: tuple[str, str], emptied: str, timeout: int) -> None:
    """Remove what ``present`` applied, unless somebody still uses it."""
    found = api.crds()
    ours = {name: crd for name, crd in found.items() if is_ours(crd)}
    used = in_use({crd["spec"]["names"]["plural"]: api.objects(crd) for crd in ours.values()}, emptied)
    kept = f"there are still {used}" if used else conflict([], api.deployments(), release)
    if kept or not ours:
        module.exit_json(changed=False, names=[], kept=f"KubeRay's CRDs are left: {kept}" if kept else "")
    if module.check_mode:
        module.exit_json(changed=True, names=sorted(ours), kept="")
    for name in ours:
        api.remove(name)
    end = time.monotonic() + timeout
    while left := sorted(ours.keys() & api.crds().keys()):
        if time.monotonic() > end:
            module.fail_json(msg=f"after {timeout} s the API still has {', '.join(left)}", names=left)
        time.sleep(POLL_S)
    module.exit_json(changed=True, names=sorted(ours), kept="")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "chart": {"type": "path"},
            "release": {"type": "str", "required": True},
            "namespace": {"type": "str", "required": True},
            "emptied": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "compare": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 60},
        },
        required_if=[("state", "present", ["chart"])],
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    release = (asked["namespace"], asked["release"])
    api = Api(asked["kubeconfig"])
    if asked["state"] == "absent":
        absent(module, api, release, asked["emptied"], asked["timeout"])
    before = api.crds()
    fault = conflict(before.values(), api.deployments(), release)
    if fault:
        module.fail_json(msg=f"{fault}. Nothing was changed")
    try:
        present(module, api, before, asked)
    except ValueError as fault:
        module.fail_json(msg=str(fault))
    except kubernetes().ApiException as refusal:
        module.fail_json(msg=f"the API refuses KubeRay's CRDs: {refusal.reason}: {str(refusal.body)[:500]}")


if __name__ == "__main__":
    main()
