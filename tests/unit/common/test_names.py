"""Whatever models are called, what is named after them stays apart and is what its place takes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from heteroserve.common.names import (
    LABEL,
    LONGEST_NAME,
    backend_name,
    cell_prefix,
    label_value,
    model_label,
    node_name_fault,
    object_name,
    weights_folder,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.text("aAbB01._-/", min_size=1, max_size=96).filter(lambda text: text[0].isalnum())
VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
OBJECT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
ALIKE = ["llama", "meta/llama", "meta--llama", "meta-llama", "meta llama", "a/b--c", "a--b/c", "a/b/c", "a" * 80]
ODD = [*ALIKE, "a" * 81, "/", "ä"]


@pytest.mark.parametrize("named", [label_value, model_label, object_name])
@given(st.lists(NAMES, min_size=2, max_size=8, unique=True))
def test_different_models_never_share_a_name(named: Callable[[str], str], models: list[str]) -> None:
    found = [named(model) for model in models]
    assert len(set(found)) == len(models)
    assert all((OBJECT if named is object_name else VALUE).fullmatch(text.removeprefix(LABEL)) for text in found)


@pytest.mark.parametrize("named", [label_value, model_label, object_name, weights_folder, backend_name])
def test_long_and_odd_names_stay_apart(named: Callable[[str], str]) -> None:
    assert len({named(name) for name in ODD}) == len(ODD)


def test_plain_names_stay_as_they_are() -> None:
    assert label_value("llama-3.1-8b") == "llama-3.1-8b"
    assert weights_folder("smollm2-135m-instruct") == "smollm2-135m-instruct"
    assert weights_folder("meta/llama") == "meta--llama"
    assert backend_name("llama-3.1-8b") == "model-llama-3.1-8b"
    assert re.fullmatch(r"model-meta-llama-[0-9a-f]{6}", backend_name("meta/llama"))


@given(NAMES, st.sampled_from(("cpu", "nvidia-h100-sxm-80gb", "intel-gaudi3-pcie-128gb")))
def test_a_cell_can_be_a_kubernetes_service(model: str, kind: str) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", cell_prefix(model, kind))
    assert len(cell_prefix(model, kind)) <= LONGEST_NAME - 4


@pytest.mark.parametrize("host", ["r760-1", "gpu.example.org", "1"])
def test_names_that_a_node_may_have(host: str) -> None:
    assert node_name_fault(host) is None


@pytest.mark.parametrize("host", ["Node_01", "GPU1", "gpu_1", "-a", "a-", "a..b", "x" * 64])
def test_names_that_no_node_may_have(host: str) -> None:
    assert node_name_fault(host)
