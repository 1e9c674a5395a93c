"""What the cells' objects need to know beyond the plan, and what of plan and settings KubeRay would refuse."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from ..common.names import LONGEST_NAME
from ..plan.schema import Cell
from .resources import RESOURCES

# Kubernetes' node ports, unless K3s is told otherwise (service-node-port-range).
NODE_PORTS = (30000, 32767)
OLDEST_RAY = (2, 53)  # token authentication needs 2.52; the probes' /api/healthz needs 2.53


@dataclass(frozen=True)
class Settings:
    """Choices of an installation. Secrets are names of Secrets, never what is in them."""

    images: dict[str, str]  # a cell's build -> image, by digest or by a tag that is not moved
    ray_version: str  # of the images; KubeRay decides by it
    models_path: str  # folder of the weights on every host, a folder a model (model_store_path)
    cache_path: str  # folder of what engines keep between their starts, on every host
    gateways: tuple[str, ...] = ()  # addresses or networks of the gateway hosts, as a cell's host sees them
    monitors: tuple[str, ...] = ()  # the same of the monitoring hosts
    namespace: str = "heteroserve"
    operator_namespace: str = "kuberay-operator"
    token_secret: str = "ray-token"  # Secret whose key auth_token is the token of all cells
    pull_secret: str = ""  # Secret for the registry; empty for none
    user: int = 1000  # uid and gid, those of the images' USER
    grace_s: int = 30  # seconds that a stopped pod goes on answering; a replacement waits for them
    memory_headroom: float = 1.25  # limit of a pod's memory over what the plan expects
    object_store_mib: int = 100  # tokens go from engine to client, nothing is kept
    cpu_per_core: float = 0.5  # processors that a pod asks for, for each core that the plan gives it
    # Host -> gids of its groups render and video, where its GPUs are theirs (AMD, Intel): a container's user has no
    # groups of its own, and the numbers differ between hosts.
    device_groups: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tolerations: tuple[dict[str, str], ...] = ()  # of taints that an operator has put on nodes


def network(address: str, whose: str) -> str:
    """An address as a network of one, a network as it is. Raises ``ValueError`` for a name."""
    try:
        return str(ipaddress.ip_network(address, strict=False))
    except ValueError:
        raise ValueError(
            f"{whose} is reached at {address}, and a NetworkPolicy takes addresses only: set its ansible_host to one"
        ) from None


def faults(cells: tuple[Cell, ...], settings: Settings) -> list[str]:
    """Sentences on what KubeRay or Kubernetes would refuse, before anything is applied."""
    found = [fault for cell in cells for fault in _cell_faults(cell, settings)]
    for whose, addresses in (("a gateway host", settings.gateways), ("a monitoring host", settings.monitors)):
        for address in addresses:
            try:
                network(address, whose)
            except ValueError as fault:
                found.append(str(fault))
    version = tuple(int(part) for part in re.findall(r"\d+", settings.ray_version)[:2])
    if version < OLDEST_RAY:
        found.append(
            f"the images have Ray {settings.ray_version or 'of no stated version'}: 2.53 is the oldest that fits"
        )
    return list(dict.fromkeys(found))


def _cell_faults(cell: Cell, settings: Settings) -> list[str]:
    found = []
    # The operator's own check (ValidateRayServiceMetadata): a DNS-1035 label, which begins with a letter.
    if len(cell.name) > LONGEST_NAME:
        found.append(f"{cell.name}: the name has {len(cell.name)} characters and KubeRay takes {LONGEST_NAME}")
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", cell.name):
        found.append(
            f"{cell.name}: KubeRay takes names of small letters, digits and hyphens that begin with a letter: rename"
            f" the model {cell.model}"
        )
    port = cell.ports["serve"]
    if not NODE_PORTS[0] <= port <= NODE_PORTS[1]:
        found.append(
            f"{cell.name}: port {port} is no node port: set cell_port_base so that all lie in"
            f" {NODE_PORTS[0]} to {NODE_PORTS[1]}"
        )
    if cell.vendor != "cpu" and cell.vendor not in RESOURCES:
        found.append(f"{cell.name}: Kubernetes counts no accelerators of {cell.vendor}")
    image = settings.images.get(cell.build, "")
    if not image:
        found.append(f"{cell.name}: there is no image for {cell.build}: build it with playbooks/images.yml")
    elif "@sha256:" not in image and (":" not in image.rpartition("/")[2] or image.endswith(":latest")):
        found.append(f"{cell.name}: the image {image} may change unseen: name its digest (image@sha256:...)")
    return found
