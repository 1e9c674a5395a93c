"""Objects against what Kubernetes knows: KubeRay's own CRDs, and the models of the Kubernetes client."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes.client
import yaml

ROOT = Path(__file__).resolve().parents[3]
CRDS = Path(os.environ.get("HETEROSERVE_CRDS", ROOT.parent / "shared" / "crds" / "kuberay-1.7.0"))
SKIP = f"KubeRay's CRDs are not at {CRDS}: set HETEROSERVE_CRDS to the folder of its crd/bases"
MODELS = {
    "Namespace": "V1Namespace",
    "NetworkPolicy": "V1NetworkPolicy",
    "PersistentVolume": "V1PersistentVolume",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
    "PriorityClass": "V1PriorityClass",
    "ServiceAccount": "V1ServiceAccount",
}


def strict(schema: Any) -> Any:
    """A structural schema as JSON schema that refuses what the API server would prune: fields that it does not know."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    out = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    out.pop("format", None)
    if "properties" in out:
        out["properties"] = {key: strict(value) for key, value in out["properties"].items()}
        if "additionalProperties" not in out and not schema.get("x-kubernetes-preserve-unknown-fields"):
            out["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = strict(out[key])
    if out.pop("nullable", False) and "type" in out:
        out["type"] = [out["type"], "null"]
    return out


@cache
def validator(name: str = "rayservices") -> jsonschema.Draft202012Validator:
    """Of the stored version of a CRD."""
    crd = yaml.load((CRDS / f"ray.io_{name}.yaml").read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    version = next(one for one in crd["spec"]["versions"] if one["storage"])
    return jsonschema.Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]))


def faults(found: dict[str, Any]) -> list[str]:
    """Why the API server would not take a RayService as it is."""
    return [f"{error.json_path}: {error.message[:200]}" for error in validator().iter_errors(found)]


def unknown(found: Any, model: str, where: str = "") -> list[str]:
    """Fields of an object of Kubernetes that its type does not have, and values of another type."""
    if model.lower().startswith("list["):
        if not isinstance(found, list):
            return [f"{where}: not a list"]
        return [text for number, one in enumerate(found) for text in unknown(one, model[5:-1], f"{where}[{number}]")]
    if model.lower().startswith(("dict(", "dict[")):
        if not isinstance(found, dict):
            return [f"{where}: not a mapping"]
        inner = model[5:-1].split(", ")[1]
        return [text for key, one in found.items() for text in unknown(one, inner, f"{where}.{key}")]
    simple = {"str": str, "int": int, "bool": bool, "object": (str, int)}
    if model in simple:
        return [] if isinstance(found, simple[model]) else [f"{where}: {found!r} is no {model}"]
    kind = getattr(kubernetes.client, model)
    fields = {kind.attribute_map[name]: of for name, of in kind.openapi_types.items()}
    return [
        text
        for key, one in found.items()
        for text in (unknown(one, fields[key], f"{where}.{key}") if key in fields else [f"{where}.{key}: unknown"])
    ]


def not_restricted(pod: dict[str, Any]) -> list[str]:
    """What of a pod's spec PodSecurity's profile `restricted` forbids."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [f"volume {volume['name']}" for volume in pod["volumes"] if not set(volume) - {"name"} <= allowed]
    whole = pod["securityContext"]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = container.get("securityContext", {})
        both = {**whole, **own}
        checks = {
            "runAsNonRoot": both.get("runAsNonRoot") is True,
            "runAsUser": both.get("runAsUser") != 0,
            "seccompProfile": both.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged"),
            "capabilities.drop": own.get("capabilities", {}).get("drop") == ["ALL"],
            "capabilities.add": set(own.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"},
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {name}" for name, holds in checks.items() if not holds]
    return found
