"""The chatbot's role, and its page in a real browser: a real gateway in front of cells of the engine for tests."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from heteroserve.common import processes
from heteroserve.common.names import backend_name
from playwright.sync_api import Browser

from tests.helpers.chatbot_person import CHROMIUM, Person, chromium
from tests.helpers.playbook_runs import changed, told

from .conftest import Installation, installation
from .test_gateway import planned_cell

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]
KEY = "sk-chatbot-alice"
QUESTION = "What is the capital of France?"
LONG = "and so on " * 60  # 180 tokens of the engine for tests
CELLS = {"alpha": 19450, "beta": 19451}
TOKEN_S = 0.05
PORT = 19490


@dataclass
class Stack:
    """A gateway over one cell for each model, and the chatbot in front of it."""

    installation: Installation
    cells: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    url: str = f"http://127.0.0.1:{PORT}"

    def start(self, model: str) -> None:
        command = [sys.executable, "-m", "tests.helpers.echo_cell", str(CELLS[model]), model, str(TOKEN_S)]
        self.cells[model] = subprocess.Popen(command, cwd=self.installation.root)

    def end(self, model: str) -> None:
        self.cells[model].kill()
        self.cells[model].wait()

    def metric(self, name: str, model: str = "alpha") -> float:
        text = httpx.get(f"http://127.0.0.1:{CELLS[model]}/metrics", timeout=5).text
        return sum(
            float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"heteroserve_engine_{name}{{")
        )

    def running(self, model: str = "alpha") -> float:
        """Answers that the engine computes now."""
        return self.metric("num_requests", model)

    def waits_for(self, running: float, model: str = "alpha", limit_s: float = 5) -> float:
        """Seconds until the engine computes so many answers."""
        began = time.monotonic()
        while (found := self.running(model)) != running:
            assert time.monotonic() - began < limit_s, f"the engine computes {found} answers, not {running}"
            time.sleep(0.02)
        return time.monotonic() - began

    def answers(self, model: str) -> None:
        """Wait until the gateway lets requests through to a cell."""
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        deadline = time.monotonic() + 20
        while True:
            try:
                sent = {"Authorization": f"Bearer {KEY}"}
                url = f"{self.installation.gateway}/v1/chat/completions"
                if httpx.post(url, json=body, headers=sent, timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, f"{model} is not answered for"
            time.sleep(0.1)

    def supervisor(self, *words: str) -> None:
        state = self.installation.state
        program, settings = state / "envs/host/bin/supervisorctl", state / "supervisor/supervisord.conf"
        subprocess.run([program, "-c", settings, *words], check=True, capture_output=True)

    def playbook(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self.installation.run("run", "playbooks/chatbot.yml", *words)
        assert done.returncode == 0, told(done)
        return done


def plan() -> dict[str, object]:
    models = [{"name": name, "context": 2000, "chat": True, "backend": backend_name(name)} for name in CELLS]
    cells = [planned_cell(f"{name}-0", name, port) | {"build": "echo"} for name, port in CELLS.items()]
    return {"runtime": "ray", "models": models, "cells": cells, "gateway": {"hosts": ["local"], "body_bytes": 262144}}


@pytest.fixture(scope="module")
def stack(root: Path, scratch: Path) -> Iterator[Stack]:
    made = installation(root, scratch / "chatbot", 19400)
    made.ports["chatbot_port"] = PORT
    made.state.mkdir(parents=True)
    (made.state / "plan.json").write_text(json.dumps(plan()))
    found = Stack(made)
    try:
        for model in CELLS:
            found.start(model)
        keys = [{"name": "alice", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
        done = made.run("run", "playbooks/gateway.yml", "-e", json.dumps({"gateway_api_keys": keys}))
        assert done.returncode == 0, told(done)
        found.playbook()
        for model in CELLS:
            found.answers(model)
        yield found
    finally:
        processes.end(processes.INSTALLATION, str(made.state), grace_s=5)
        for model in found.cells:
            found.end(model)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def arrive(browser: Browser, stack: Stack) -> Iterator[Callable[[], Person]]:
    """Lets somebody come to the page, with a browser of their own and a key; fails if a browser saw a fault."""
    found: list[Person] = []

    def arriving() -> Person:
        found.append(Person(browser, stack.url, KEY))
        found[-1].model_is("alpha")
        return found[-1]

    yield arriving
    for person in found:
        person.context.close()
        assert person.faults == []
        assert person.asked == {"127.0.0.1"}


@pytest.fixture
def person(arrive: Callable[[], Person]) -> Person:
    return arrive()


def test_tokens_arrive_one_after_another(person: Person) -> None:
    person.ask(QUESTION)
    seen: set[str] = set()
    deadline = time.monotonic() + 5
    while "Paris." not in person.chat.inner_text() and time.monotonic() < deadline:
        seen.add(person.chat.inner_text())
        time.sleep(0.02)
    parts = {found[0] for text in seen if (found := re.search(r"The cap[\w ]*", text))}
    assert len(parts) >= 3, seen
    assert person.figures().startswith("10 tokens · ")
    speed = re.search(r"([\d.]+) tokens/s", person.figures())
    assert speed
    assert 0.5 / TOKEN_S < float(speed[1]) < 1.1 / TOKEN_S


def test_a_stop_ends_the_generation(person: Person, stack: Stack) -> None:
    person.ask(LONG)
    stack.waits_for(1)
    person.stop()
    took = stack.waits_for(0)
    assert took < 1
    person.sees("stopped")
    time.sleep(0.5)  # nothing is drawn over it
    assert "answering" not in person.chat.inner_text()
    assert "Error" not in person.chat.inner_text()
    person.ask(QUESTION)
    person.figures()


def test_a_closed_tab_ends_the_generation(person: Person, stack: Stack) -> None:
    person.ask(LONG)
    stack.waits_for(1)
    person.page.close()
    stack.waits_for(0)


def test_a_tab_closed_before_it_reads_its_answer_ends_the_generation(stack: Stack) -> None:
    """A page has sent its question, and goes before it has opened the stream in which the answer comes."""
    api, session = f"{stack.url}/gradio_api", {"session_hash": "abcdefghijk"}
    question = {"role": "user", "content": [{"type": "text", "text": LONG}]}
    with httpx.Client(timeout=5) as page:
        functions = page.get(f"{stack.url}/config").json()["dependencies"]
        models = next(found["id"] for found in functions if any(at[1] == "load" for at in found["targets"]))
        answer = next(found["id"] for found in functions if len(found["inputs"]) == 6)  # `data` below has its inputs
        with page.stream("GET", f"{api}/heartbeat/{session['session_hash']}") as alive:
            lines = alive.iter_lines()  # without a name it would be collected, and the stream closed
            assert next(lines) == "data: ALIVE"
            page.post(f"{api}/queue/join", json={"fn_index": models, "data": [KEY, None], **session}).raise_for_status()
            assert '"success":true' in page.get(f"{api}/queue/data", params=session).text
            data = [[question], "alpha", "", 0, 512, KEY]
            page.post(f"{api}/queue/join", json={"fn_index": answer, "data": data, **session}).raise_for_status()
            stack.waits_for(1)
    stack.waits_for(0)


def test_the_model_sees_the_system_prompt_and_what_was_said_but_no_figures(person: Person) -> None:
    person.page.locator("#system textarea").fill("Answer in verse")
    person.ask("first words")
    person.figures()
    person.ask("second words")
    person.sees("Answer in verse first words Answer in verse first words second words")
    person.figures()


def test_an_answer_has_the_length_that_was_set(person: Person) -> None:
    person.set("length", "5")
    person.ask(LONG)
    person.sees(re.compile(r"5 tokens · .* · cut off at the length of 5 tokens"))


def test_another_model_answers_once_it_is_chosen(person: Person, stack: Stack) -> None:
    before = stack.metric("generation_tokens_total", "beta")
    person.choose("beta")
    person.ask(QUESTION)
    person.figures()
    assert stack.metric("generation_tokens_total", "beta") == before + 10


def test_a_question_can_be_asked_again_rewritten_and_taken_back(person: Person, stack: Stack) -> None:
    person.ask("number one")
    person.figures()
    person.edit("number two")
    person.figures()
    assert person.questions() == ["number two"]
    before = stack.metric("generation_tokens_total")
    person.press("Retry")
    person.figures()
    assert person.questions() == ["number two"]
    assert stack.metric("generation_tokens_total") > before
    for again in (lambda: person.edit(LONG), lambda: person.press("Retry")) * 2:
        again()
        stack.waits_for(1)
        person.stop()
        stack.waits_for(0)
        person.sees("stopped")
    person.press("Undo")
    person.box_has(LONG)
    assert person.questions() == []


def test_two_people_at_once(arrive: Callable[[], Person], stack: Stack) -> None:
    people = [arrive(), arrive()]
    for number, one in enumerate(people):
        one.ask(f"person{number} " * 30)
    stack.waits_for(2)
    for number, one in enumerate(people):
        one.figures()
        assert f"person{number}" in one.chat.inner_text()
        assert f"person{1 - number}" not in one.chat.inner_text()


def test_a_key_is_asked_for_and_a_wrong_one_is_told(browser: Browser, stack: Stack) -> None:
    stranger = Person(browser, stack.url)
    stranger.is_told("The endpoint asks for an API key. Enter yours at “API key”.")
    stranger.enter_key("sk-wrong")
    stranger.is_told("The endpoint does not know this API key.")
    stranger.ask(QUESTION)
    stranger.sees("No model is chosen.")
    stranger.enter_key(KEY)
    stranger.model_is("alpha")
    stranger.press("Retry")
    stranger.figures()
    assert stranger.faults == []
    stranger.context.close()


def test_a_cell_that_is_down_and_one_that_goes_away(person: Person, stack: Stack) -> None:
    person.choose("beta")
    person.ask(LONG)
    person.is_answered("and so on and so on")
    stack.end("beta")
    person.sees("The answer broke off")
    person.is_answered("and so on and so on")
    person.press("Retry")
    person.sees("No cell of beta can answer now. Try again in 5 seconds.")
    stack.start("beta")
    stack.answers("beta")
    person.edit(QUESTION)
    person.figures()


def test_a_conversation_that_is_too_long(person: Person) -> None:
    person.ask(LONG * 12)
    person.sees("do not fit into the model's context of 2,000 tokens.")
    person.ask(QUESTION)
    person.figures()


def test_a_gateway_that_is_down(person: Person, stack: Stack) -> None:
    stack.supervisor("stop", "gateway")
    try:
        person.ask(QUESTION)
        person.sees(f"Nothing answers at {stack.installation.gateway}.")
    finally:
        stack.supervisor("start", "gateway")
        stack.answers("alpha")
    person.press("Retry")
    person.figures()


def test_what_a_model_writes_takes_the_browser_nowhere_else(person: Person) -> None:
    person.ask("![one](http://example.org/1.png) <img src='http://example.org/2.png'> <script>alert(1)</script>")
    person.figures()
    assert set(person.refused) >= {"http://example.org/1.png"}
    assert person.asked == {"127.0.0.1"}
    assert [fault for fault in person.faults if "Content Security Policy" not in fault] == []
    person.faults.clear()


def test_nothing_can_be_left_on_the_host(stack: Stack) -> None:
    files = {"files": ("big", b"x" * 1000)}
    assert httpx.post(f"{stack.url}/gradio_api/upload", files=files).status_code == 413


def test_key_and_conversations_are_neither_logged_nor_shown(stack: Stack) -> None:
    state = stack.installation.state
    log = (state / "logs" / "chatbot.log").read_text()
    assert not any(secret in log for secret in (KEY, "sk-wrong", "and so on", "capital"))
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert KEY.encode() not in entry.read_bytes(), entry
        except OSError:
            continue


def test_a_second_run_changes_nothing(stack: Stack) -> None:
    assert changed(stack.playbook().stdout) == 0


@pytest.mark.long("a minute; the role's other tests, and test_a_key_is_asked_for_and_a_wrong_one_is_told")
def test_one_key_for_everyone_and_what_status_shows(browser: Browser, stack: Stack) -> None:
    state = stack.installation.state
    stack.playbook("-e", f"chatbot_api_key={KEY}")
    assert (state / "chatbot" / "key").stat().st_mode & 0o777 == 0o600
    assert KEY not in (state / "supervisor" / "programs" / "chatbot.conf").read_text()
    person = Person(browser, stack.url)
    person.model_is("alpha")
    assert person.page.locator("#key").count() == 0
    person.ask(QUESTION)
    person.figures()
    person.context.close()
    status = stack.installation.run("status")
    assert re.search(rf"^ *chatbot +{stack.url}$", status.stdout, re.MULTILINE), told(status)
    stack.supervisor("stop", "chatbot")
    status = stack.installation.run("status")
    assert status.returncode != 0
    assert "the chatbot is down" in status.stdout
    stack.playbook()
    assert not (state / "chatbot" / "key").exists()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a network of its own is root's to make")
def test_it_works_without_a_network(stack: Stack) -> None:
    """Page, browser and endpoint where there is only loopback: no request fails, and nothing else is even tried."""
    program = stack.installation.state / "envs" / "chatbot" / "bin" / "python"
    command = ["unshare", "--net", sys.executable, "-m", "tests.helpers.chatbot_without_network", str(program)]
    done = subprocess.run(
        command, cwd=stack.installation.root, capture_output=True, encoding="utf-8", timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("figures").startswith("10 tokens · ")
    assert found == {"faults": [], "browser": ["127.0.0.1"], "server": ["127.0.0.1"]}


PROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 10m
    timeout server 10m
frontend site
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem
    http-request set-header X-Forwarded-Proto https
    http-request replace-path /chat(/)?(.*) /\\2
    use_backend chatbot
backend chatbot
    server chatbot 127.0.0.1:{behind}
"""


@pytest.mark.long("half a minute; nothing of the page differs, and units have the options")
def test_over_tls_and_below_a_path_of_a_proxy(browser: Browser, stack: Stack, tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if haproxy is None:
        pytest.skip("there is no haproxy: apt-get install haproxy")
    key, certificate, own, behind, proxied = tmp_path / "key.pem", tmp_path / "certificate.pem", 19491, 19492, 19493
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=chatbot"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    (tmp_path / "both.pem").write_text(certificate.read_text() + key.read_text())
    (tmp_path / "proxy.cfg").write_text(PROXY.format(port=proxied, folder=tmp_path, behind=behind))
    chatbot = [stack.installation.state / "envs/chatbot/bin/python", "-m", "serving.chatbot"]
    chatbot += ["--url", stack.installation.gateway]
    commands = [
        [*chatbot, "--port", str(own), "--certificate", certificate, "--certificate-key", key],
        [*chatbot, "--port", str(behind), "--root-path", "/chat"],
        [haproxy, "-db", "-f", tmp_path / "proxy.cfg"],
    ]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)}
    programs = [subprocess.Popen(command, cwd=stack.installation.root, env=environment) for command in commands]
    try:
        for url in (f"https://127.0.0.1:{own}/", f"https://127.0.0.1:{proxied}/chat/"):
            until_it_answers(url)
            person = Person(browser, url, KEY)
            person.model_is("alpha")
            person.ask(QUESTION)
            person.figures()
            person.context.close()
            assert person.faults == []
            assert person.asked == {"127.0.0.1"}
    finally:
        for program in programs:
            program.terminate()
            program.wait()


def until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(url, verify=False, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.2)


def test_it_can_be_removed(stack: Stack) -> None:
    state = stack.installation.state
    stack.playbook("-e", "chatbot_state=absent")
    left = [state / "chatbot", state / "envs" / "chatbot", state / "supervisor" / "programs" / "chatbot.conf"]
    assert [path for path in left if path.exists()] == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(stack.url)


@pytest.mark.long("half a minute; units read the role's and the reset's tasks through the linters")
def test_a_reset_takes_it_away_and_the_next_run_does_not_start_it(stack: Stack) -> None:
    state = stack.installation.state
    stack.playbook("-e", "chatbot_state=absent")
    assert changed(stack.playbook("-e", "chatbot_state=absent").stdout) == 0
    stack.playbook()
    done = stack.installation.run("down")
    assert done.returncode == 0, told(done)
    assert stack.installation.members() == {}
    done = stack.installation.run("run", "playbooks/gateway.yml")
    assert done.returncode == 0, told(done)
    assert not (state / "chatbot" / "chatbot.json").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(stack.url)
