"""What HAProxy says is read rightly, whichever version says it, and what it reads of us does no harm."""

from __future__ import annotations

from heteroserve.gateway.haproxy import Cell, answering, cells, kept, left_alone, read_kept, servers, sessions, workers

PROC_2_6 = """#<PID>          <type>          <reloads>       <uptime>        <version>
1162            master          5 [failed: 0]   0d00h02m07s     2.6.12
# workers
1271            worker          0               0d00h00m00s     2.6.12
# old workers
1233            worker          3               0d00h00m43s     2.6.12
# programs
1244            foo             0               0d00h00m00s     -
"""
PROC_2_4 = """#<PID>          <type>          <relative PID>  <reloads>       <uptime>        <version>
1162            master          0               5               0d00h02m07s     2.4.22
# workers
1271            worker          1               0               0d00h00m00s     2.4.22
# old workers
1233            worker          [was: 1]        3               0d00h00m43s     2.4.22
# programs

"""
STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr \
srv_agent_port
2 model-a 1 a-0 10.0.0.1 2 8 3 3 627 6 3 2 6 0 0 0 - 30000 - 0 0 - - 0
2 model-a 2 a-1 10.0.0.2 0 0 3 3 627 8 2 0 6 0 0 0 - 30001 - 0 0 - - 0
3 model-b 1 b-0 10.0.0.2 2 0 3 3 627 6 3 2 6 0 0 0 - 30002 - 0 0 - - 0

"""
MODELS = {"a-0": "a", "a-1": "a", "b-0": "b"}


def test_the_present_worker_comes_before_those_that_a_reload_left_behind() -> None:
    assert workers(PROC_2_6) == workers(PROC_2_4) == (1271, 1233)
    assert workers(PROC_2_6.split("# old")[0]) == (1271,)
    assert workers("") == ()


def test_a_cell_has_the_requests_of_all_workers() -> None:
    stat = "# pxname,svname,qcur,scur\nmodel-a,a-0,1,2\nmodel-a,BACKEND,0,2\nf,FRONTEND,,9\nmodel-b,b-0,0,\n"
    assert sessions(stat) == {"a-0": 3, "b-0": 0}
    found = cells(servers(STATE), [sessions(stat), {"a-0": 4}, {}])
    assert found == {"a-0": Cell(True, True, 7), "a-1": Cell(False, False, 0), "b-0": Cell(True, False, 0)}
    assert answering(found) == ["b-0"]


def test_the_last_cell_that_answers_is_told() -> None:
    well, ill, out = Cell(True, False, 0), Cell(False, False, 0), Cell(True, True, 0)
    assert left_alone(["a-0"], {"a-0": well, "a-1": well, "b-0": well}, MODELS) == []
    alone = ["a-0 is the only cell that answers for a"]
    assert left_alone(["a-0"], {"a-0": well, "a-1": ill}, MODELS) == alone
    assert left_alone(["a-0"], {"a-0": well, "a-1": out}, MODELS) == alone
    assert left_alone(["a-0", "a-1"], {"a-0": well, "a-1": well}, MODELS) == [
        "a-0, a-1 are the only cells that answer for a"
    ]
    # One that does not answer anyway can go; and without the models nobody is asked.
    assert left_alone(["a-0"], {"a-0": ill, "a-1": ill}, MODELS) == []
    assert left_alone(["a-0"], {"a-0": well}, {}) == []


def test_only_drained_cells_are_kept_and_with_the_port_of_the_configuration() -> None:
    text = kept(servers(STATE), {"a-0": 31000})
    assert text == "1\n0 model-a 0 a-0 - 2 8 3 3 0 6 3 2 6 0 0 0 - 31000 -\n"
    assert kept(read_kept(text), {"a-0": 32000}) == text.replace("31000", "32000")
    assert kept(read_kept(text), {}) == text
    assert kept({}, {}) == "1\n"
    assert read_kept("1\n") == read_kept("") == {}
