"""What is said of a cell that starts: lines are those of vLLM 0.25 and 0.29."""

from __future__ import annotations

import pytest
from heteroserve.serving.starting import step_of

ENGINE = "INFO 11-29 11:09:58 [core.py:123] Initializing a V1 LLM engine (v0.29.0) with config: ..."
MODEL = "(Worker pid=827) INFO 11-29 11:11:05 [cpu_model_runner.py:131] Starting to load model /models/small..."
SHARDS = "Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:05<00:07,  2.60s/it]"
LOADED = "(Worker pid=827) INFO 11-29 11:11:10 [default_loader.py:430] Loading weights took 5.19 seconds"
COMPILED = "(EngineCore pid=3194) INFO 11-29 10:57:04 [monitor.py:53] torch.compile took 4.81 s in total"
GRAPHS = "INFO 11-29 10:57:13 [model_runner.py:722] Graph capturing finished in 6 secs, took 0.98 GiB"
READY = "(EngineCore pid=769) INFO [core.py:368] init engine (profile, create kv cache, warmup model) took 2.19 s"
WHOLE = (ENGINE, MODEL, SHARDS, LOADED, COMPILED, GRAPHS, READY)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (0, ""),
        (1, "starting the engine"),
        (2, "loading the weights"),
        (3, "loading the weights (40 %)"),
        (4, "preparing the engine"),
        (5, "warming up"),
        (6, "capturing graphs"),
        (7, "starting the server"),
    ],
)
def test_the_last_step_is_said(lines: int, said: str) -> None:
    assert step_of("\n".join(WHOLE[:lines])) == said


def test_the_order_of_the_files_does_not_matter() -> None:
    assert step_of("\n".join((LOADED, SHARDS, MODEL, ENGINE))) == "preparing the engine"
