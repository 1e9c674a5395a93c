"""The objects of a cell: what KubeRay and Kubernetes take, and what the plan asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from heteroserve.cluster.gpu_plugins import RESOURCES as COUNTED
from heteroserve.cluster.quantities import canonical, value
from heteroserve.common.names import LONGEST_NAME, SPEC, label_value
from heteroserve.inventory.models import ModelSource
from heteroserve.plan.schema import Beside, Cell, Expectation, Limits, Placement, Plan, PlannedModel, cell_digest
from heteroserve.serving.names import DIGEST, TAKES
from heteroserve.serving.names import MODEL as MODEL_NAME
from heteroserve.serving.objects import cell_objects, disruption_budgets, restorable, shared_objects
from heteroserve.serving.resources import RESOURCES, devices, host_memory, takes
from heteroserve.serving.settings import Settings, faults
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plan.estate import hosts, model, plan_of
from tests.unit.plan.test_planner_properties import ESTATES, models
from tests.unit.serving import schema
from tests.unit.serving.conftest import BUILDS
from tests.unit.serving.conftest import DIGEST as IMAGE

LIMITS = Limits(4096, 16, 3 * 2**30 // 2, 1000, 2**31, 2**33)
MODEL = PlannedModel(
    "meta/llama", ModelSource(hub="meta/llama"), 4096, "bfloat16", None, 1, 2**34 + 1, 1, folder="meta--llama"
)
PLAIN = Settings({build: f"r:5000/{build}{IMAGE}" for build in BUILDS}, "2.60.0", "/models/", "/cache")


def cell(vendor: str = "cpu", hosts: tuple[str, ...] = ("a",), each: int = 1, **more: Any) -> Cell:
    """One replica over all hosts, with ``each`` accelerators (or cores) of each."""
    one = Placement(hosts, cores=each) if vendor == "cpu" else Placement(hosts, (tuple(range(each)),) * len(hosts))
    build = {"nvidia": "vllm-cuda", "amd": "vllm-rocm", "intel": "vllm-xpu"}.get(vendor, "vllm-cpu")
    values: dict[str, Any] = {
        "name": "llama-0",
        "pool": "p",
        "model": MODEL.name,
        "engine": "vllm",
        "build": build,
        "accelerator": vendor,
        "vendor": vendor,
        "tensor_parallel_size": each if vendor != "cpu" else 1,
        "hosts": hosts,
        "replicas": (one,),
        "limits": LIMITS,
        "engine_args": {},
        "ports": {"serve": 30000, "dashboard": 30001},
        "weight": 256,
        "expected": (Expectation(1, 1.0, 1.0, 1.0),),
        "digest": "0123456789abcdef",
    }
    return Cell(**{**values, **more})


def built(given: Cell, settings: Settings = PLAIN) -> dict[str, dict[str, Any]]:
    """The objects of a cell by kind; of volumes and claims, those of the weights."""
    return {one["kind"]: one for one in reversed(cell_objects(given, MODEL, settings))}


def templates(service: dict[str, Any]) -> list[dict[str, Any]]:
    """Pod templates of a RayService, the head's first."""
    cluster = service["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"]["template"], *(one["template"] for one in cluster.get("workerGroupSpecs", []))]


def quantities(thing: Any) -> Iterator[str]:
    """All quantities in an object."""
    if isinstance(thing, dict):
        for key, value_of in thing.items():
            if key in ("requests", "limits", "capacity"):
                yield from value_of.values()
            elif key == "sizeLimit":
                yield value_of
            else:
                yield from quantities(value_of)
    elif isinstance(thing, list):
        for one in thing:
            yield from quantities(one)


def check(plan: Plan, settings: Settings) -> None:
    """What holds for every plan."""
    known = {model.name: model for model in plan.models}
    for planned in plan.cells:
        objects = {one["kind"]: one for one in cell_objects(planned, known[planned.model], settings)}
        service = objects["RayService"]
        assert len(service["metadata"]["name"]) <= LONGEST_NAME
        assert all(canonical(text) == text for one in objects.values() for text in quantities(one))
        placed: set[str] = set()
        for template in templates(service):
            spec = template["spec"]
            assert schema.not_restricted(spec) == []
            (container,) = spec["containers"]
            vendors = {name for name in container["resources"]["limits"] if "/" in name}
            assert vendors == ({RESOURCES[planned.vendor]} if planned.vendor != "cpu" else set())
            assert {name for name in container["resources"]["requests"] if "/" in name} == vendors
            assert (spec.get("runtimeClassName") == "nvidia") == (planned.vendor == "nvidia")
            for name, most in container["resources"]["limits"].items():
                assert value(container["resources"]["requests"][name]) <= value(most)
            terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            (term,) = terms["nodeSelectorTerms"]
            (only,) = term["matchExpressions"]
            assert (only["key"], only["operator"]) == ("kubernetes.io/hostname", "In")
            assert not placed & set(only["values"])
            placed |= set(only["values"])
        assert placed == set(planned.hosts)
        volume = objects["PersistentVolume"]["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
        assert volume[0]["matchExpressions"][0]["values"] == list(planned.hosts)


def test_the_cells_of_the_example_are_what_kuberay_knows(dell: Plan, settings: Settings) -> None:
    if not schema.CRDS.is_dir():
        pytest.skip(schema.SKIP)
    known = {model.name: model for model in dell.models}
    assert {planned.vendor for planned in dell.cells} == {"nvidia", "amd", "cpu"}
    for planned in dell.cells:
        for one in cell_objects(planned, known[planned.model], settings):
            if one["kind"] == "RayService":
                assert schema.faults(one) == []


def test_the_schema_refuses_what_it_does_not_know() -> None:
    if not schema.CRDS.is_dir():
        pytest.skip(schema.SKIP)
    service = built(cell("nvidia", ("a", "b"), 8))["RayService"]
    assert schema.faults(service) == []
    head = templates(service)[0]["spec"]
    head["containers"][0]["imagePulPolicy"] = "Always"
    head["tolerations"][0]["opertor"] = "Exists"
    service["spec"]["rayClusterConfig"]["authOptions"]["mode"] = "yes"
    service["spec"]["serveConfigV3"] = ""
    said = " ".join(schema.faults(service))
    for word in ("imagePulPolicy", "opertor", "'yes'", "serveConfigV3"):
        assert word in said


def test_the_other_objects_are_what_kubernetes_knows(dell: Plan, settings: Settings) -> None:
    known = {model.name: model for model in dell.models}
    objects = shared_objects(dell, settings)
    for planned in dell.cells:
        objects += cell_objects(planned, known[planned.model], settings)
    objects += cell_objects(cell("amd", ("a", "b"), 8), MODEL, settings)
    seen = {one["kind"] for one in objects}
    assert seen == {*schema.MODELS, "RayService"}
    for one in objects:
        if one["kind"] in schema.MODELS:
            assert schema.unknown(one, schema.MODELS[one["kind"]], one["kind"]) == []
        else:
            for template in templates(one):
                assert schema.unknown(template, "V1PodTemplateSpec") == []
            assert schema.unknown(one["spec"]["serveService"]["spec"], "V1ServiceSpec") == []
    assert schema.unknown({"spec": {"local": {"pth": "/x"}}}, "V1PersistentVolume") == [".spec.local.pth: unknown"]


def test_what_holds_for_every_plan_holds_for_the_example(dell: Plan, settings: Settings) -> None:
    assert faults(dell.cells, settings) == []
    check(dell, settings)


@given(ESTATES, models())
def test_what_holds_for_every_plan(estate: Any, wishes: Any) -> None:
    plan = plan_of(estate, *wishes, port_base=30000)
    assert [fault for fault in faults(plan.cells, PLAIN) if "name" in fault] == []
    check(plan, PLAIN)
    names = [one["metadata"]["name"] for one in disruption_budgets(plan.cells, PLAIN)]
    assert len(set(names)) == len(names)


def test_a_model_too_large_for_a_host_is_a_cell_that_kuberay_knows() -> None:
    plan = plan_of(hosts("h100", "h100"), model("llama-3.1-405b"), port_base=30000)
    (planned,) = plan.cells
    assert len(planned.hosts) == 2
    check(plan, PLAIN)
    (budget,) = disruption_budgets(plan.cells, PLAIN)
    assert budget["spec"]["minAvailable"] == 1
    if schema.CRDS.is_dir():
        assert schema.faults(cell_objects(planned, plan.models[0], PLAIN)[-1]) == []


@given(
    st.sampled_from(["cpu", "nvidia", "amd", "intel", "habana"]),
    st.integers(1, 4),
    st.integers(1, 16),
    st.integers(1, 2**40),
    st.floats(0.01, 4),
)
def test_what_holds_for_every_cell(vendor: str, count: int, each: int, ram: int, headroom: float) -> None:
    names = tuple(f"h{number}" for number in range(1 if vendor == "cpu" else count))
    given_cell = cell(vendor, names, each, limits=replace(LIMITS, host_memory_bytes=ram))
    plan = Plan("k3s", (MODEL,), (), (given_cell,), None)  # type: ignore[arg-type]
    check(plan, replace(PLAIN, memory_headroom=headroom))
    assert sum(devices(given_cell, name) for name in names) == (0 if vendor == "cpu" else each * len(names))
    assert sum(host_memory(given_cell, name) for name in names) <= ram


def test_a_cell_of_one_host_is_one_pod_that_serves() -> None:
    service = built(cell("nvidia", each=2))["RayService"]
    cluster = service["spec"]["rayClusterConfig"]
    assert "workerGroupSpecs" not in cluster
    assert {"name": "serve", "containerPort": 8000, "protocol": "TCP"} in templates(service)[0]["spec"]["containers"][
        0
    ]["ports"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-gpus"] == "2"
    assert service["spec"]["upgradeStrategy"] == {"type": "None"}


def test_a_cell_of_several_hosts_has_its_head_where_the_gateway_asks() -> None:
    given_cell = cell("amd", ("a", "b", "c"), 8, engine_args={"pipeline_parallel_size": 3})
    service = built(given_cell)["RayService"]
    (workers,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (2, 2, 2)
    head, worker = templates(service)
    assert "podAntiAffinity" in head["spec"]["affinity"]
    # Only the head has the port that the service names, so no request goes to a worker, which has no proxy.
    assert service["spec"]["serveService"]["spec"]["ports"][0]["targetPort"] == "serve"
    assert "serve" not in [port["name"] for port in worker["spec"]["containers"][0]["ports"]]
    assert "placement_group_config" not in service["spec"]["serveConfigV2"]
    assert "exec" not in json.dumps(worker)  # KubeRay's own probe of a worker waits for a proxy


def test_the_application_is_yaml_and_the_plans() -> None:
    service = built(cell("nvidia", each=2, engine_args={"gpu_memory_utilization": 0.9, "x": "no"}))["RayService"]
    text = service["spec"]["serveConfigV2"]
    config = yaml.safe_load(text)
    assert config == json.loads(text)
    args = config["applications"][0]["args"]
    assert args["path"] == "/models/meta--llama"
    assert args["deployment"]["ray_actor_options"]["num_gpus"] == 2
    assert config["http_options"] == {"host": "0.0.0.0", "port": 8000}
    mounts = {one["name"]: one for one in templates(service)[0]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["weights"] == {"name": "weights", "mountPath": "/models/meta--llama", "readOnly": True}


def test_the_weights_are_a_volume_of_their_own_for_this_cell() -> None:
    found = built(cell(hosts=("a",)))
    volume, claim = found["PersistentVolume"], found["PersistentVolumeClaim"]
    assert volume["spec"]["local"] == {"path": "/models/meta--llama"}
    assert volume["spec"]["claimRef"]["name"] == claim["metadata"]["name"] == claim["spec"]["volumeName"]
    assert claim["spec"]["storageClassName"] == ""
    assert value(volume["spec"]["capacity"]["storage"]) >= MODEL.weight_bytes
    elsewhere = built(cell(hosts=("b",)))["PersistentVolume"]["metadata"]["name"]
    assert elsewhere != volume["metadata"]["name"]  # a volume's host and folder cannot be changed


def test_adapters_and_a_draft_model_are_volumes_of_the_cell_and_mounted_where_vllm_is_told() -> None:
    beside = (
        Beside("o/sql", "llama", "adapter", MODEL.source, 9, "o--sql", "adapter_config.json", 8),
        Beside("llama+draft", "llama", "draft", MODEL.source, 9, "llama+draft"),
    )
    args = {"enable_lora": True, "speculative_config": {"method": "draft_model", "num_speculative_tokens": 3}}
    given = cell(hosts=("a",), engine="vllm", engine_args=args)
    objects = cell_objects(given, replace(MODEL, beside=beside), PLAIN)
    claims = {
        one["spec"]["local"]["path"]: one["spec"]["claimRef"]["name"]
        for one in objects
        if one["kind"] == "PersistentVolume"
    }
    assert set(claims) == {"/models/meta--llama", "/models/o--sql", "/models/llama+draft", "/cache"}
    spec = templates(objects[-1])[0]["spec"]
    used = {one["name"]: one["persistentVolumeClaim"] for one in spec["volumes"] if "persistentVolumeClaim" in one}
    mounted = {one["mountPath"]: one for one in spec["containers"][0]["volumeMounts"]}
    for path, claim in claims.items():
        assert used[mounted[path]["name"]]["claimName"] == claim
        assert mounted[path].get("readOnly", False) == (path != "/cache")
    (application,) = yaml.safe_load(objects[-1]["spec"]["serveConfigV2"])["applications"]
    engine = application["args"]["engine_kwargs"]
    assert engine["lora_modules"] == [{"name": "o/sql", "path": "/models/o--sql"}]
    assert engine["speculative_config"]["model"] == "/models/llama+draft"


def test_what_an_engine_keeps_is_a_folder_of_the_host_that_it_may_write() -> None:
    given = cell(hosts=("a",))
    objects = cell_objects(given, MODEL, PLAIN)
    (volume,) = (one for one in objects if one["spec"].get("local") == {"path": "/cache"})
    name = volume["metadata"]["name"]
    (claim,) = (one for one in objects if one["spec"].get("volumeName") == name)
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"] == ["ReadWriteMany"]
    spec = templates(built(given)["RayService"])[0]["spec"]
    mounts = {one["name"]: one for one in spec["containers"][0]["volumeMounts"]}
    assert mounts["cache"] == {"name": "cache", "mountPath": "/cache"}
    assert {"name": "HETEROSERVE_CACHE", "value": "/cache"} in spec["containers"][0]["env"]
    used = {one["name"]: one for one in spec["volumes"]}
    assert used["cache"]["persistentVolumeClaim"] == {"claimName": name}


def test_the_node_port_is_the_plans_and_keeps_the_callers_address() -> None:
    spec = built(cell())["RayService"]["spec"]["serveService"]["spec"]
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("NodePort", "Local")
    assert [port["nodePort"] for port in spec["ports"]] == [30000]


def test_only_gateway_monitoring_and_operator_reach_a_cell() -> None:
    settings = replace(PLAIN, gateways=("10.0.0.1", "fd00::1"), monitors=("10.0.1.0/24",))
    policy = built(cell(), settings)["NetworkPolicy"]["spec"]
    open_to = {
        json.dumps(peer, sort_keys=True): sorted(port["port"] for port in rule.get("ports", []))
        for rule in policy["ingress"]
        for peer in rule["from"]
    }
    blocks = {key: ports for key, ports in open_to.items() if "ipBlock" in key}
    assert blocks == {
        '{"ipBlock": {"cidr": "10.0.0.1/32"}}': [8000],
        '{"ipBlock": {"cidr": "fd00::1/128"}}': [8000],
        '{"ipBlock": {"cidr": "10.0.1.0/24"}}': [8000, 8080, 9101],
    }
    (operator,) = [key for key in open_to if "kuberay-operator" in key]
    assert open_to[operator] == [8000, 8265]
    own = '{"podSelector": {"matchLabels": {"heteroserve.io/cell": "llama-0"}}}'
    assert set(open_to) == {*blocks, operator, own}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    # Without gateways nobody is let in: an empty list of peers would mean everyone.
    assert all(rule["from"] for rule in built(cell())["NetworkPolicy"]["spec"]["ingress"])


def test_secrets_are_named_and_never_written() -> None:
    settings = replace(PLAIN, token_secret="rack-token", pull_secret="rack-registry")
    service = built(cell(), settings)["RayService"]
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token", "secretName": "rack-token"}
    assert service["spec"]["rayClusterConfig"]["rayVersion"] == "2.60.0"
    pod = templates(service)[0]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "rack-registry"}]
    assert pod["automountServiceAccountToken"] is False


def test_the_head_does_not_wait_for_its_application() -> None:
    container = templates(built(cell())["RayService"])[0]["spec"]["containers"][0]
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[kind]["httpGet"]["port"] == 52365


def test_the_digest_changes_with_all_that_a_restart_would_carry_out() -> None:
    first = built(cell())["RayService"]["metadata"]["annotations"]
    assert first[DIGEST] == "0123456789abcdef"
    other_image = replace(PLAIN, images={**PLAIN.images, "vllm-cpu": "r/x@sha256:" + "1" * 64})
    for changed in (
        built(cell(), replace(PLAIN, ray_version="2.61.0")),
        built(cell(), other_image),
        built(cell(engine_args={"x": 1})),
    ):
        assert changed["RayService"]["metadata"]["annotations"][SPEC] != first[SPEC]
    # Who may call is carried out without a restart, and what the gateway makes of the weight too.
    for same in (built(cell(), replace(PLAIN, gateways=("10.0.0.9",))), built(cell(weight=1))):
        assert same["RayService"]["metadata"]["annotations"][SPEC] == first[SPEC]


def test_cells_whose_replicas_are_not_bound_are_not_restarted_for_it() -> None:
    """These are their digests from before a plan could say which cores a replica has."""
    assert cell_digest(cell(), MODEL) == "e258531a7f2a1ddd"
    assert cell_digest(cell("nvidia"), MODEL) == "f1f39c717312c4c7"
    bound = [cell(replicas=(Placement(("a",), cores=1, first_core=first),)) for first in (0, 1)]
    assert len({cell_digest(one, MODEL) for one in (cell(), *bound)}) == 3


def test_pods_carry_the_digest_of_what_they_are_made_of() -> None:
    """And it is the one that cells had before their pods carried it, or the first run after that would restart all."""
    service = built(cell("nvidia", ("a", "b"), 4))["RayService"]
    own = service["metadata"]["annotations"]
    found = templates(service)
    assert len(found) == 2
    for template in found:
        assert template["metadata"].pop("annotations") == {key: own[key] for key in (SPEC, MODEL_NAME, TAKES)}
    text = json.dumps(service["spec"], sort_keys=True).encode()
    assert own[SPEC] == hashlib.sha256(text).hexdigest()[:16]


def test_a_budget_keeps_all_but_one_pod_of_a_model() -> None:
    cells = (cell(name="x-0"), cell(name="x-1", vendor="amd", hosts=("b", "c")), cell(name="y-0", model="y"))
    (budget,) = disruption_budgets(cells, PLAIN)
    assert budget["spec"]["minAvailable"] == 2
    assert budget["spec"]["selector"]["matchLabels"] == {"heteroserve.io/model": label_value(MODEL.name)}


@pytest.mark.parametrize(
    ("given_cell", "settings", "said"),
    [
        (cell(name="x" * 48), PLAIN, "the name has 48 characters and KubeRay takes 47"),
        (cell(name="7b-0"), PLAIN, "begin with a letter: rename the model meta/llama"),
        (cell(ports={"serve": 18000}), PLAIN, "port 18000 is no node port: set cell_port_base"),
        (cell(vendor="tpu"), PLAIN, "Kubernetes counts no accelerators of tpu"),
        (cell(), replace(PLAIN, images={}), "there is no image for vllm-cpu"),
        (cell(), replace(PLAIN, images={"vllm-cpu": "r:5000/x"}), "may change unseen"),
        (cell(), replace(PLAIN, images={"vllm-cpu": "r/x:latest"}), "may change unseen"),
        (cell(), replace(PLAIN, gateways=("gw.rack",)), "a gateway host is reached at gw.rack"),
        (cell(), replace(PLAIN, ray_version="2.51.0"), "2.53 is the oldest that fits"),
        (cell(), replace(PLAIN, ray_version=""), "of no stated version"),
    ],
)
def test_what_would_be_refused_is_said_first(given_cell: Cell, settings: Settings, said: str) -> None:
    (fault,) = faults((given_cell,), settings)
    assert said in fault


def test_tables_agree() -> None:
    assert COUNTED.items() <= RESOURCES.items()
    assert 63 - len("-serve-svc") - len("-abcde") == LONGEST_NAME
    assert takes(cell("amd", ("a", "b"), 8)) == {"a": {"amd.com/gpu": 8}, "b": {"amd.com/gpu": 8}}
    assert takes(cell(each=64)) == {"a": {"cpu": 64}}


def test_what_is_put_back_is_what_was_there() -> None:
    service = built(cell())["RayService"]
    found = json.loads(json.dumps(service))
    found["metadata"] |= {"uid": "x", "resourceVersion": "7", "managedFields": [], "finalizers": ["f"]}
    found["status"] = {"conditions": []}
    assert restorable(found) == service
