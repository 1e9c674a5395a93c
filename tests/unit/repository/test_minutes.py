"""The end of a whole run of tests says where the time went, what was left out, and how it ended."""

from __future__ import annotations

from tests.helpers.minutes import cases, closing, left_out, minutes

JUNIT = """<testsuites><testsuite name="pytest" time="90.5">
<testcase classname="tests.unit.plan.test_planner" name="test_a" time="0.5"/>
<testcase classname="tests.molecule.test_scenarios" name="test_scenario[stores]" time="30"/>
<testcase classname="tests.cluster.test_rack.TestEndpoint" name="test_b" time="60"><failure message="no"/></testcase>
<testcase classname="tests.cluster.test_rack" name="test_c" time="0"><skipped message="five minutes"/></testcase>
</testsuite></testsuites>"""


def test_minutes_are_summed_by_part() -> None:
    lines = minutes(cases(JUNIT)).splitlines()
    assert lines[:3] == ["   1.0  cluster/test_rack", "   0.5  molecule stores", "   0.0  unit"]
    assert "    60  cluster/test_rack/TestEndpoint::test_b" in lines


def test_what_was_left_out_is_said_with_its_reason() -> None:
    assert left_out(cases(JUNIT)) == "     1  five minutes: cluster/test_rack::test_c"


def test_the_last_line_is_pytests_own() -> None:
    assert closing(cases(JUNIT), 90.5).strip("=") == " 1 failed, 2 passed, 1 skipped in 90.50s "
    assert closing([], 0).strip("=") == " no tests ran in 0.00s "
