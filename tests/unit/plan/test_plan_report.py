"""The plan in words: table, difference and page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from heteroserve.plan.page import plan_page
from heteroserve.plan.planner import HostEntry
from heteroserve.plan.report import WIDTH, diff_in_words, host_ranges, plan_report, plan_summary, why_unplaced
from heteroserve.plan.schema import Plan

from tests.unit.plan.estate import host, hosts, model, plan_of, this_machine

MANY = hosts("h100", "h200", "mi300x", "gaudi3", "l40s", "bridged", "mi210", "amx", "zen3")
MODELS = (
    model("llama-3.1-405b"),
    model("llama-3.3-70b", "an-organisation/with-a-long-name-for-its-own-70b-model"),
    model("llama-3.1-8b"),
    model("llama-3.2-1b"),
)
VOID = {"meta", "rect", "circle", "br", "path"}


def test_report_is_at_most_120_wide_and_says_everything() -> None:
    for wanted in (MODELS, MODELS[:1], (), (model("llama-2-70b", hosts=("zen3-9",)),)):
        text = plan_report(plan_of(MANY, *wanted))
        assert max(map(len, text.splitlines())) <= WIDTH
        assert text.endswith("\n")
    assert "no engine here drives Intel Gaudi 3" in plan_report(plan_of(MANY, *MODELS))


def test_the_summary_says_of_each_host_what_it_does_or_why_it_does_nothing() -> None:
    plan = plan_of(MANY, *MODELS)
    found = plan_summary(plan, MANY)
    assert found["headline"].startswith("Plan for runtime k3s: 4 models in ")
    assert set(found["models"]) == {one.name for one in plan.models}
    assert sum(one["replicas"] for one in found["models"].values()) == sum(len(cell.replicas) for cell in plan.cells)
    assert set(found["hosts"]) == set(MANY)
    placed = {host for host, said in found["hosts"].items() if isinstance(said, list) and said}
    assert placed == {host for cell in plan.cells for host in cell.hosts}
    assert "no engine here drives Intel Gaudi 3" in found["hosts"]["gaudi3-4"]


def test_columns_are_aligned() -> None:
    text = plan_report(plan_of(MANY, *MODELS))
    block = text.split("What runs where\n")[1].split("\n\n")[0].splitlines()
    start = block[0].index("HOST")
    assert all(line[start - 1] == " " and line[start] != " " for line in block[1:])


def test_large_plans_are_summed_up() -> None:
    estate = {f"gpu{number:03}": host("h100") for number in range(60)}
    text = plan_report(plan_of(estate, model("llama-3.1-8b"), model("llama-3.3-70b")))
    assert len(text.splitlines()) < 40
    assert "gpu[" in text


def test_runs_of_names_are_folded() -> None:
    assert host_ranges(["n2", "n1", "n3", "n10", "login"]) == "login, n[1:3], n10"
    assert host_ranges(["a", "a"]) == "a"
    assert host_ranges(["r09", "r10"]) == "r[09:10]"


def test_unplaced_models_in_one_sentence() -> None:
    plan = plan_of({"localhost": HostEntry(this_machine())}, model("llama-2-70b"), runtime="ray")
    text = why_unplaced(plan)
    assert text.startswith("llama-2-70b needs 138.0 GB at bfloat16")
    assert "; add a host with more memory" in text
    assert "\n" not in text


def test_no_difference_is_no_text() -> None:
    plan = plan_of(MANY, *MODELS)
    assert diff_in_words(plan, plan) == ""


def test_difference_names_what_comes_goes_and_restarts() -> None:
    one = plan_of(hosts("h100"), model("llama-3.1-8b"), model("llama-2-13b"))
    two = plan_of(hosts("h100", "l40s"), model("llama-3.1-8b", context=2048), model("llama-3.2-3b"), previous=one)
    text = diff_in_words(one, two)
    assert "+ model llama-3.2-3b is new" in text
    assert "- model llama-2-13b is no longer served" in text
    assert re.search(r"~ cell llama-3-1-8b-h100-sxm-80gb-0 restarts: context 4096 -> 2048", text)
    assert re.search(r"\+ cell .* on l40s-2 \(GPU ", text)
    assert re.search(r"= llama-3.1-8b: [\d,]+ -> [\d,]+ tokens/s expected", text)
    assert diff_in_words(None, one).startswith("+ cell llama-2-13b-h100-sxm-80gb-0: ")


class Checker(HTMLParser):
    """Every element that opens also closes, in order; nothing is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Scripts, links and sources would make the page depend on something."""
        assert tag not in ("script", "link", "img", "iframe")
        assert not {name for name, _ in attrs} & {"src", "href", "onclick"}
        self.count += 1
        if tag not in VOID or (self.get_starttag_text() == f"<{tag}>" and tag == "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed by itself."""
        self.count += 1

    def handle_endtag(self, tag: str) -> None:
        """Matches the last that was opened."""
        if tag in VOID:
            return
        assert self.open.pop() == tag


def page_of(plan: Plan, estate: dict[str, HostEntry]) -> str:
    text = plan_page(plan, estate)
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    assert checker.count > 20
    return text


def test_page_is_self_contained_and_complete() -> None:
    racks = {
        name: HostEntry(entry.hardware, rack=f"R{number // 3}") for number, (name, entry) in enumerate(MANY.items())
    }
    plan = plan_of(racks, *MODELS)
    text = page_of(plan, racks)
    assert all(name in text for name in racks)
    assert all(cell.name in text for cell in plan.cells)
    assert ">R0<" in text
    assert "prefers-color-scheme:dark" in text
    assert "@media print" in text
    assert "http" not in text
    assert plan_page(plan, racks) == text


def test_page_escapes_names() -> None:
    text = page_of(plan_of(hosts("l40s"), model("llama-3.2-1b", "<b>&co")), hosts("l40s"))
    assert "<b>&co" not in text
    assert "&lt;b&gt;&amp;co" in text


def test_page_of_an_empty_plan() -> None:
    page_of(plan_of(hosts("amx")), hosts("amx"))
