"""Names that follow from others': as short as their place wants them, and never the same for two models."""

from __future__ import annotations

import re

import pytest
from heteroserve.plan.names import backend_name, weights_folder

NAMES = ("llama", "meta/llama", "meta--llama", "meta-llama", "meta llama", "a/b--c", "a--b/c", "a/b/c")


@pytest.mark.parametrize("function", [weights_folder, backend_name])
def test_models_never_share_a_name(function: object) -> None:
    assert callable(function)
    assert len({function(name) for name in NAMES}) == len(NAMES)


def test_plain_names_stay_as_they_are() -> None:
    assert weights_folder("smollm2-135m-instruct") == "smollm2-135m-instruct"
    assert weights_folder("meta/llama") == "meta--llama"
    assert backend_name("llama-3.1-8b") == "model-llama-3.1-8b"
    assert re.fullmatch(r"model-meta-llama-[0-9a-f]{6}", backend_name("meta/llama"))
