"""Ways to break a cell, and the sentence that each of them has to give."""

from __future__ import annotations

import base64
import copy
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from heteroserve.common.names import SPEC
from heteroserve.plan.schema import plan_from_json
from heteroserve.serving.objects import cell_objects
from heteroserve.serving.settings import Settings

from tests.cluster.conftest import Cluster
from tests.helpers import serving

Objects = list[dict[str, Any]]
NAME, HOST, PORT = "broken-0", "agent-2", 30900
OTHER = "agent-1"  # for a cell over two hosts
ONE_MORE = "a minute; units know all of these sentences"


@dataclass(frozen=True)
class Break:
    """One way: what is done to the objects or the cluster, how it is undone, and what is to be said."""

    says: str  # regular expression
    objects: Callable[[Objects], None] = lambda objects: None
    before: Callable[[Cluster], object] = lambda cluster: None
    after: Callable[[Cluster], object] = lambda cluster: None
    hosts: tuple[str, ...] = (HOST,)
    long: str = ""  # why CI has no time for it


def _template(objects: Objects) -> dict[str, Any]:
    return dict(objects[-1]["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"])


def _image(objects: Objects) -> None:
    container = _template(objects)["containers"][0]
    container["image"] = f"{container['image'].partition('@')[0]}@sha256:{'0' * 64}"


def _gpus(objects: Objects) -> None:
    for amounts in _template(objects)["containers"][0]["resources"].values():
        amounts["nvidia.com/gpu"] = "4"


def _path(objects: Objects) -> None:
    objects[0]["spec"]["local"]["path"] = "/var/lib/heteroserve/models/nowhere"


def _argument(objects: Objects) -> None:
    config = json.loads(objects[-1]["spec"]["serveConfigV2"])
    config["applications"][0]["args"]["engine_kwargs"]["max_modle_len"] = 1
    objects[-1]["spec"]["serveConfigV2"] = json.dumps(config)


def _memory(objects: Objects) -> None:
    amounts = _template(objects)["containers"][0]["resources"]
    amounts["limits"]["memory"] = amounts["requests"]["memory"] = "300Mi"


def _token(objects: Objects) -> None:
    objects[-1]["spec"]["rayClusterConfig"]["authOptions"]["secretName"] = "other-token"


def _parameter(objects: Objects) -> None:
    objects[-1]["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["object-store-memry"] = "1"


def _port(objects: Objects) -> None:
    (port,) = [one for one in _template(objects)["containers"][0]["ports"] if one["name"] == "serve"]
    port["name"] = "http"


def _no_yaml(objects: Objects) -> None:
    objects[-1]["spec"]["serveConfigV2"] = "applications: [name: x: y"


def _small_worker(objects: Objects) -> None:
    """There is a cell on its host, and it is deleted before it serves anything."""
    (group,) = objects[-1]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    group["template"]["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "100m", "memory": "512Mi"}


def _lose_worker(cluster: Cluster) -> None:
    """The worker's pod is deleted once it runs, and its host closed, so that no other takes its place."""

    def lose() -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            for pod in serving.pods(cluster, NAME):
                if pod["spec"].get("nodeName") == OTHER and pod["status"].get("phase") == "Running":
                    cluster.kubectl("cordon", OTHER)
                    name = pod["metadata"]["name"]
                    cluster.kubectl("-n", serving.NAMESPACE, "delete", "pod", name, "--grace-period=1")
                    return
            time.sleep(0.5)

    threading.Thread(target=lose, daemon=True).start()


def _secret(cluster: Cluster, token: str) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "other-token", "namespace": serving.NAMESPACE},
        "data": {"auth_token": base64.b64encode(token.encode()).decode()},
    }
    cluster.kubectl("apply", "-f", "-", text=json.dumps(secret))


def _change_token(cluster: Cluster) -> None:
    """Ray starts with one token, and the operator finds another one in the Secret."""
    _secret(cluster, "a" * 64)

    def change() -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            if any(pod["status"].get("phase") == "Running" for pod in serving.pods(cluster, NAME)):
                _secret(cluster, "b" * 64)
                return
            time.sleep(0.2)

    threading.Thread(target=change, daemon=True).start()


BREAKS = {
    "an image that does not exist": Break(
        # containerd asks once more, as if for a registry that it knows nothing of, and tells of that: The test
        # cluster gives it no authority there; K3s is expected to, which was not tried.
        rf"{HOST} cannot get the image .*{'0' * 64} .*(the registry has no such image|does not trust the registry)",
        _image,
        long=ONE_MORE,
    ),
    "four GPUs where none is": Break(
        rf"does not fit: it asks for 4 of nvidia.com/gpu; {HOST} offers none: is its driver loaded",
        _gpus,
        long=ONE_MORE,
    ),
    "a wrong model path": Break(
        rf"the weights are not on {HOST}: /var/lib/heteroserve/models/nowhere does not exist",
        _path,
        long=ONE_MORE,
    ),
    "a typing error in an engine argument": Break(
        r"max_modle_len.*an engine argument is wrong", _argument, long="the update that fails shows the same"
    ),
    "a memory limit that is too low": Break(
        r"ran out of memory \((OOMKilled|killed with status 137), limit 300Mi, restarted \dx\)", _memory, long=ONE_MORE
    ),
    "a bad token": Break(
        r"Ray does not take the operator's token",
        _token,
        _change_token,
        lambda cluster: cluster.kubectl("-n", serving.NAMESPACE, "delete", "secret", "other-token"),
        long=ONE_MORE,
    ),
    "a wrong parameter of ray start": Break(
        r"ended with status 2, restarted \dx; .*[Nn]o such option.*: a parameter of `ray start` is wrong",
        _parameter,
        long=ONE_MORE,
    ),
    "no port for Serve": Break(
        r"the head's container has no port named `serve` \(it has .*http.*\), so the cell's node port leads nowhere",
        _port,
        long=ONE_MORE,
    ),
    "an application that is no YAML": Break(r"the cell's serveConfigV2 is no YAML: yaml: ", _no_yaml, long=ONE_MORE),
    "a lost worker": Break(
        rf"the host {OTHER} is cordoned and takes no pod \(.*-worker-.* waits\): `kubectl uncordon {OTHER}`",
        _small_worker,
        _lose_worker,
        lambda cluster: cluster.kubectl("uncordon", OTHER),
        hosts=(HOST, OTHER),
        long=ONE_MORE,
    ),
    "a cordoned node": Break(
        rf"the host {HOST} is cordoned and takes no pod .*kubectl uncordon {HOST}",
        before=lambda cluster: cluster.kubectl("cordon", HOST),
        after=lambda cluster: cluster.kubectl("uncordon", HOST),
        long=ONE_MORE,
    ),
}


def whole(cluster: Cluster, hosts: tuple[str, ...] = (HOST,)) -> Objects:
    """Objects of a cell that would run on the hosts, but for what is broken."""
    plan = plan_from_json((cluster.state / "plan.json").read_text())
    images = json.loads((cluster.state / "engine-images.json").read_text())
    settings = Settings(
        images={build: image["reference"] for build, image in images.items()},
        ray_version=next(iter(images.values()))["ray_version"],
        models_path="/var/lib/heteroserve/models",
        cache_path="/var/lib/heteroserve/cache",
    )
    cell = plan.cells[0]
    placed = tuple(replace(one, hosts=hosts) for one in cell.replicas)
    cell = replace(cell, name=NAME, hosts=hosts, replicas=placed, ports={**cell.ports, "serve": PORT})
    return copy.deepcopy(cell_objects(cell, plan.models[0], settings))


def bring(
    cluster: Cluster, objects: Objects, state: str, hosts: tuple[str, ...] = (HOST,), limit_s: int = 240
) -> tuple[bool, str]:
    """Whether the module succeeded, and what it said."""
    asked = {
        "cell_name": NAME,
        "cell_state": state,
        "cell_hosts": list(hosts),
        "cell_objects": objects,
        "cell_spec": objects[-1]["metadata"]["annotations"][SPEC],
        "cell_timeout": limit_s,
    }
    file = cluster.folder.parent / "cell.json"
    file.write_text(json.dumps(asked))
    done = cluster.try_play("tests/cluster/cell.yml", "-e", f"@{file}")
    said = re.search(rf"^  ({NAME}: .*)$", done.stdout, re.MULTILINE)
    return done.returncode == 0, said[1] if said else done.stdout[-2000:]
