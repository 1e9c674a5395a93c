"""Whose KubeRay a cluster has, whether its operator runs, and what the chart has of CRDs."""

from __future__ import annotations

import copy
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from heteroserve.cluster.evidence import Evidence
from heteroserve.cluster.kuberay import (
    APPLIED,
    available,
    conflict,
    content,
    established,
    in_use,
    is_ours,
    not_established,
    operator_fault,
    own_labels,
)
from heteroserve.serving.objects import namespace
from heteroserve.serving.settings import Settings

from python_plugins.modules.cluster import kuberay_crds

OURS = ("kuberay-operator", "kuberay-operator")
HELM = {"meta.helm.sh/release-namespace": "kuberay-operator", "meta.helm.sh/release-name": "kuberay-operator"}
THEIRS = {"meta.helm.sh/release-namespace": "ray", "meta.helm.sh/release-name": "kuberay"}


def crd(name: str = "rayclusters", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}.ray.io", **metadata},
        "spec": {"group": "ray.io", "names": {"plural": name, "kind": "RayCluster"}, "versions": []},
    }


def deployment(image: str = "quay.io/kuberay/operator:v1.7.0", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "operator", "namespace": "ray", "generation": 2, **metadata},
        "spec": {
            "replicas": 1,
            "template": {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "a", "image": image}]}},
        },
    }


def pod(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "operator-1", "namespace": "ray"},
        "spec": {"containers": [{"name": "a", "image": "x/operator:v1"}]},
        "status": {"phase": "Pending", **status},
    }


def looked_at(*pods: dict[str, Any]) -> Evidence:
    return Evidence(cell="", hosts=(), operator=pods)


def test_what_the_role_has_installed_is_no_conflict() -> None:
    ours = deployment(annotations=HELM)
    assert conflict([own_labels(crd())], [ours, deployment("nginx")], OURS) == ""
    # Left by helm uninstall, which leaves CRDs: nobody's.
    assert conflict([crd()], [], OURS) == ""
    assert conflict([crd(annotations=HELM)], [], OURS) == ""


def test_another_operator_is_named_with_how_it_is_removed() -> None:
    said = conflict([], [deployment(annotations=THEIRS)], OURS)
    assert "Deployment operator in the namespace ray, of the Helm release kuberay of the namespace ray" in said
    assert "helm uninstall -n ray kuberay" in said
    said = conflict([], [deployment("mirror:5000/kuberay/operator:v1.4.0")], OURS)
    assert "kubectl delete -n ray deployment operator" in said
    renamed = deployment("mirror/other")
    renamed["spec"]["template"]["metadata"]["labels"] = {"app.kubernetes.io/name": "kuberay-operator"}
    assert conflict([], [renamed], OURS)


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        ({"annotations": THEIRS}, "the Helm release kuberay of the namespace ray"),
        ({"labels": {"argocd.argoproj.io/instance": "ml"}}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "ml"}}, "Flux"),
        ({"labels": {"app.kubernetes.io/managed-by": "gitops"}}, "gitops"),
    ],
)
def test_crds_that_somebody_keeps_are_refused(metadata: dict[str, Any], owner: str) -> None:
    said = conflict([crd(**metadata)], [], OURS)
    assert said.startswith(f"the CRD rayclusters.ray.io belongs to {owner}, which would undo what is changed here")


def test_crds_are_ours_once_applied() -> None:
    assert not is_ours(crd())
    assert is_ours(own_labels(crd(labels={"kept": "yes"})))
    assert own_labels(crd(labels={"kept": "yes"}))["metadata"]["labels"]["kept"] == "yes"
    assert content(None) != content(crd())
    assert content(crd(resourceVersion="1")) == content(crd(resourceVersion="2", labels={}))
    assert content(crd()) != content(own_labels(crd()))


def test_crds_that_the_api_does_not_serve_say_why() -> None:
    clash = crd()
    clash["status"] = {
        "conditions": [
            {"type": "NamesAccepted", "status": "False", "message": '"rays" is already in use'},
            {"type": "Established", "status": "False", "message": "not all names are accepted"},
        ]
    }
    assert not established(clash)
    assert not_established(clash) == 'rayclusters.ray.io: "rays" is already in use'
    assert "the API has not looked at it yet" in not_established(crd())


def test_objects_outside_of_the_emptied_namespace_keep_the_crds() -> None:
    mine, other = ({"metadata": {"namespace": where, "name": "a"}} for where in ("heteroserve", "science"))
    assert in_use({"rayclusters": [mine]}, "heteroserve") == ""
    assert in_use({"rayclusters": [mine, other]}, "heteroserve") == "rayclusters science/a"
    assert in_use({"rayjobs": [other] * 5}).endswith("and 2 more")


def test_a_deployment_runs_when_its_last_change_does() -> None:
    running = {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1}
    assert available({**deployment(), "status": running})
    assert not available({**deployment(), "status": {**running, "observedGeneration": 1}})
    assert not available({**deployment(), "status": {**running, "updatedReplicas": 0}})
    scaled_down = deployment()
    scaled_down["spec"]["replicas"] = 0
    assert not available({**scaled_down, "status": {"observedGeneration": 2}})
    assert not available(deployment())
    assert not available(None)


def test_why_the_operator_does_not_run() -> None:
    missing = operator_fault(None, looked_at())
    assert missing is not None
    assert missing.text == "there is no Deployment of the KubeRay operator in the namespace kuberay-operator"
    message = 'pods "a" is forbidden: violates PodSecurity "restricted:latest"'
    refusal = {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]}
    refused = operator_fault({**deployment(), "status": refusal}, looked_at())
    assert refused is not None
    assert "Kubernetes refuses the KubeRay operator's pod" in refused.text
    assert message in refused.text
    waiting = {"reason": "ErrImagePull", "message": "rpc error: desc = x/operator:v1: not found"}
    pull = operator_fault(
        deployment(), looked_at(pod(containerStatuses=[{"name": "a", "state": {"waiting": waiting}}]))
    )
    assert pull is not None
    assert "put its archive into the folder images of airgap_dir" in pull.text
    assert "playbooks/images.yml" not in pull.text
    starting = operator_fault(deployment(), looked_at(pod()))
    assert starting is not None
    assert "is Pending and not ready" in starting.text
    assert starting.patience_s > pull.patience_s


def test_the_operators_last_word_is_the_error_of_its_log() -> None:
    """Its log is JSON: a line that is cut ends before its `error`."""
    lost = {
        "level": "error",
        "ts": "2026-11-28T04:00:00.123Z",
        "logger": "setup",
        "msg": "problem running manager",
        "stacktrace": "main.exitOnError\n" * 30,
        "error": "leader election lost",
    }
    after = {"level": "info", "ts": "2026-11-28T04:00:01.000Z", "msg": "Wait completed, proceeding to shutdown"}
    ended = {"name": "a", "state": {"terminated": {"exitCode": 1}}, "restartCount": 3}
    seen = replace(
        looked_at(pod(containerStatuses=[ended])), logs={"operator-1": f"{json.dumps(lost)}\n{json.dumps(after)}\n"}
    )
    found = operator_fault(deployment(), seen)
    assert found is not None
    assert found.text.endswith("restarted 3x; its last line: problem running manager: leader election lost")


def test_the_roles_namespace_is_that_of_the_cells(root: Path) -> None:
    text = (root / "roles/kuberay/vars/main.yml").read_text()
    known = yaml.safe_load(text)
    settings = Settings({}, "2.60.0", "/models", "/cache")
    wanted = namespace(settings)["metadata"]["labels"]
    assert {**known["_kuberay_labels"], **known["_kuberay_restricted"]} == wanted
    assert known["_kuberay_watched"] == settings.namespace
    assert known["_kuberay_namespace"] == settings.operator_namespace


def packed(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "chart.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_crds_are_those_of_the_charts_own_folder(tmp_path: Path) -> None:
    one, two = (json.dumps(crd(name)) for name in ("rayclusters", "rayservices"))
    files = {
        "k/Chart.yaml": "name: k",
        "k/crds/a.yaml": one,
        "k/crds/b.yaml": f"---\n{two}\n---\n",
        "k/templates/c.yaml": one,
    }
    names = [
        found["metadata"]["name"]
        for found in kuberay_crds.parse_crds(kuberay_crds.chart_files(str(packed(tmp_path, files))))
    ]
    assert names == ["rayclusters.ray.io", "rayservices.ray.io"]
    with pytest.raises(ValueError, match="is not KubeRay's chart"):
        kuberay_crds.chart_files(str(packed(tmp_path, {"k/Chart.yaml": "name: k"})))


class FakeApi:
    """The cluster's CRDs and Deployments in memory."""

    def __init__(self, found: dict[str, dict[str, Any]], deployments: list[dict[str, Any]]) -> None:
        self.found, self.given, self.applied, self.dry = found, deployments, [], []

    def crds(self) -> dict[str, dict[str, Any]]:
        return dict(self.found)

    def deployments(self) -> list[dict[str, Any]]:
        return self.given

    def apply(self, one: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        (self.dry if dry_run else self.applied).append(one["metadata"]["name"])
        after = {
            **copy.deepcopy(one),
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        }
        if not dry_run:
            self.found[one["metadata"]["name"]] = after
        return after

    def note(self, one: dict[str, Any], text: str) -> None:
        self.found[one["metadata"]["name"]]["metadata"].setdefault("annotations", {})[APPLIED] = text


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], api: FakeApi, chart: Path, check: bool = False
) -> dict[str, Any]:
    monkeypatch.setattr(kuberay_crds, "Api", lambda kubeconfig: api)
    arguments = {"kubeconfig": "/k", "chart": str(chart), "release": OURS[1], "namespace": OURS[0]}
    with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
        kuberay_crds.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_crds_are_applied_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chart, api = packed(tmp_path, {"k/crds/a.yaml": json.dumps(crd())}), FakeApi({}, [])
    assert run(monkeypatch, capsys, api, chart, check=True)["changed"]
    assert (api.applied, api.dry) == ([], ["rayclusters.ray.io"])
    assert run(monkeypatch, capsys, api, chart)["changed"]
    assert not run(monkeypatch, capsys, api, chart)["changed"]
    assert api.applied == ["rayclusters.ray.io"]


@pytest.mark.parametrize("drift", ["spec", "labels", "note", "gone", "chart"])
def test_a_crd_that_is_no_longer_what_was_applied_is_applied_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, drift: str
) -> None:
    two = {"k/crds/a.yaml": json.dumps(crd()), "k/crds/b.yaml": json.dumps(crd("rayservices"))}
    chart, api = packed(tmp_path, two), FakeApi({}, [])
    run(monkeypatch, capsys, api, chart)
    found = api.found["rayclusters.ray.io"]
    match drift:
        case "spec":
            found["spec"]["scope"] = "Cluster"
        case "labels":
            found["metadata"]["labels"].clear()
        case "note":
            del found["metadata"]["annotations"][APPLIED]
        case "gone":
            del api.found["rayclusters.ray.io"]
        case "chart":
            other = {**crd(), "spec": {**crd()["spec"], "scope": "Cluster"}}
            chart = packed(tmp_path, {**two, "k/crds/a.yaml": json.dumps(other)})
    again = run(monkeypatch, capsys, api, chart)
    # A note that somebody took away is written again; the CRD is what it was.
    assert again["changed"] == (drift != "note")
    assert api.applied == ["rayclusters.ray.io", "rayservices.ray.io"] * 2
    assert not run(monkeypatch, capsys, api, chart)["changed"]
    assert len(api.applied) == 4


def test_nothing_is_applied_over_somebody_elses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chart = packed(tmp_path, {"k/crds/a.yaml": json.dumps(crd())})
    api = FakeApi({"rayclusters.ray.io": crd(annotations=THEIRS)}, [])
    found = run(monkeypatch, capsys, api, chart)
    assert found["failed"]
    assert found["msg"].endswith("Nothing was changed")
    assert api.applied == []
