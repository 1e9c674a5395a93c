"""Where the time of a whole run of tests went, what was left out and how it ended, from pytest's junit files.

python tests/helpers/minutes.py FILE.xml ...
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from dataclasses import dataclass

SLOWEST = 15  # tests that are named one by one


@dataclass(frozen=True)
class Case:
    """One test. Its time holds that of the fixtures that were made and taken away for it."""

    part: str  # a folder of units, a file of others, a scenario of Molecule
    name: str
    seconds: float
    outcome: str  # "passed", "failed", "error" or "skipped"
    reason: str = ""


def cases(text: str) -> list[Case]:
    """The tests of one file."""
    return [_case(node) for node in ElementTree.fromstring(text).iter("testcase")]


def _case(node: ElementTree.Element) -> Case:
    words = [word for word in node.get("classname", "").split(".") if word != "tests"]
    name = node.get("name", "")
    part = words[0] if words[0] in ("lint", "unit") else "/".join(words[:2])
    if words[0] == "molecule":
        part = f"molecule {name.partition('[')[2].rstrip(']')}"
    outcome, reason = "passed", ""
    for tag, what in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
        if (found := node.find(tag)) is not None:
            outcome, reason = what, found.get("message", "")
    return Case(part, f"{'/'.join(words)}::{name}", float(node.get("time", 0)), outcome, reason)


def minutes(found: list[Case]) -> str:
    """A line for each part, the longest first, and the slowest tests."""
    seconds: dict[str, float] = defaultdict(float)
    for case in found:
        seconds[case.part] += case.seconds
    lines = [f"{spent / 60:6.1f}  {part}" for part, spent in sorted(seconds.items(), key=lambda pair: -pair[1])]
    slowest = sorted(found, key=lambda case: -case.seconds)[:SLOWEST]
    lines += ["", "The slowest tests, in seconds:", *(f"{case.seconds:6.0f}  {case.name}" for case in slowest)]
    return "\n".join(lines)


def left_out(found: list[Case]) -> str:
    """Every reason for which tests were skipped, with how many and one of them."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for case in found:
        if case.outcome == "skipped":
            reasons[case.reason].append(case.name)
    return "\n".join(f"{len(names):6}  {reason}: {names[0]}" for reason, names in sorted(reasons.items()))


def closing(found: list[Case], seconds: float) -> str:
    """The line that pytest ends with, over all files."""
    counts = Counter(case.outcome for case in found)
    order = ("failed", "passed", "skipped", "error")
    text = ", ".join(f"{counts[what]} {what}" for what in order if counts[what]) or "no tests ran"
    return f" {text} in {seconds:.2f}s ".center(80, "=")


def main(paths: list[str]) -> None:
    """Print all of it."""
    found: list[Case] = []
    seconds = 0.0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        found += cases(text)
        seconds += sum(float(suite.get("time", 0)) for suite in ElementTree.fromstring(text).iter("testsuite"))
    print(f"\nMinutes by part (parts that ran side by side add up to more than what passed):\n{minutes(found)}")
    if skipped := left_out(found):
        print(f"\nSkipped:\n{skipped}")
    for case in found:
        if case.outcome in ("failed", "error"):
            print(f"{case.outcome.upper()} {case.name} - {case.reason.splitlines()[0] if case.reason else ''}")
    print(closing(found, seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
