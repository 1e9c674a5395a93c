"""The chatbot without its page: what the endpoint is sent, what an answer shows, and each fault in words."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from serving.chatbot import words
from serving.chatbot.__main__ import arguments, key_of
from serving.chatbot.conversation import before_last_question, is_note, note, prompt, said
from serving.chatbot.conversation import fault as fault_note
from serving.chatbot.endpoint import Endpoint, Piece, Question, base_url
from serving.chatbot.figures import ANSWERING, STOPPED, Figures
from serving.chatbot.stops import Stops, until
from serving.openai import errors
from tests.helpers.stub_http import StubHandler

ASKED = words.Asked("http://127.0.0.1:8080", "llama", with_key=True)
QUESTION = Question("llama", [{"role": "user", "content": "hi"}], 0.5, 64)
VLLM_TOO_LONG = (
    "This model's maximum context length is 4096 tokens. However, you requested 512 output tokens and your prompt"
    " contains 4000 input tokens, for a total of 4512 tokens."
)


def parts(text: str) -> list[dict[str, str]]:
    """A content as Gradio hands it out."""
    return [{"type": "text", "text": text}]


def test_the_endpoint_is_sent_what_people_and_the_model_said() -> None:
    history = [
        said("user", "one"),
        {"role": "assistant", "content": parts("eins")},
        note("4 tokens"),
        said("user", "two"),
    ]
    assert prompt(history, " Answer in German. ") == [
        {"role": "system", "content": "Answer in German."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "eins"},
        {"role": "user", "content": "two"},
    ]


def test_roles_alternate_after_a_question_without_an_answer() -> None:
    """Llama 2's chat template refuses anything else."""
    history = [said("user", "one"), fault_note("No cell of llama can answer now."), said("user", "two")]
    assert prompt(history, "") == [{"role": "user", "content": "two"}]


def test_the_last_question_is_found_below_its_answer() -> None:
    history = [
        said("user", "one"),
        said("assistant", "eins"),
        said("user", "two"),
        said("assistant", "zwei"),
        note("x"),
    ]
    assert before_last_question(history) == (history[:2], "two")
    assert before_last_question(history[:2]) == ([], "one")
    assert before_last_question([]) == ([], "")


def test_a_note_is_known_again_and_shows_what_it_says() -> None:
    found = note("It says: <b> & more")
    assert is_note(found)
    assert not is_note(said("assistant", "x"))
    assert "<b>" not in found["content"]
    assert found["content"] == "<small>It says: &lt;b&gt; &amp; more</small>"


def test_figures_count_from_the_first_token_and_with_the_last() -> None:
    figures = Figures(asked=10.0, length=64)
    assert figures.line(ANSWERING) == "answering"
    for now, piece in [
        (10.1, Piece()),  # the role alone
        (10.5, Piece("a", delta=True)),
        (11.5, Piece("b", delta=True)),
        (12.5, Piece(finish="stop")),
        (12.6, Piece(tokens=3)),
    ]:
        figures = figures.after(piece, now)
    assert figures.line() == "3 tokens · 1.0 tokens/s · first token after 0.50 s"
    assert figures.after(Piece(finish="length"), 12.6).line().endswith(" · cut off at the length of 64 tokens")


def test_figures_of_an_answer_of_one_token_have_no_speed() -> None:
    figures = Figures(0.0).after(Piece("a", delta=True), 0.25).after(Piece(finish="stop", tokens=1), 0.25)
    assert figures.line() == "1 token · first token after 0.25 s"


def test_a_stopped_answer_says_so() -> None:
    assert Figures(0.0).line(STOPPED) == "stopped"
    assert replace(Figures(0.0), first=0.5, tokens=3).line(STOPPED) == "3 tokens · first token after 0.50 s · stopped"


class Numbers:
    """0, 1, 2 ... up to ``count``, then nothing for a long time, or the end."""

    def __init__(self, count: int, *, waits: bool) -> None:
        self.count, self.waits, self.closed = count, waits, False

    async def all(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self.count):
                yield number
            if self.waits:
                await asyncio.sleep(60)
        finally:
            self.closed = True


def test_a_stop_gives_up_what_is_awaited_and_closes_it() -> None:
    numbers, stops = Numbers(3, waits=True), Stops()

    async def ask() -> list[int]:
        stops.begin("one")
        seen = []
        async with aclosing(numbers.all()) as items:
            async for number in until(stops.of("one"), items):
                seen.append(number)
                if number == 2:
                    asyncio.get_running_loop().call_later(0.01, stops.stop, "one")
        return seen

    assert asyncio.run(asyncio.wait_for(ask(), 10)) == [0, 1, 2]
    assert numbers.closed


def test_an_answer_whose_page_is_closed_is_closed() -> None:
    numbers = Numbers(1, waits=True)

    async def ask() -> None:
        async with aclosing(numbers.all()) as items:
            async for _ in until(asyncio.Event(), items):
                pass

    async def leave() -> None:
        task = asyncio.ensure_future(ask())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(leave(), 10))
    assert numbers.closed


def test_who_leaves_stops_an_answer_that_is_awaited() -> None:
    """Whether or not Gradio closes it."""
    numbers, stops = Numbers(3, waits=True), Stops()

    async def ask() -> None:
        stops.begin("one")
        async with aclosing(numbers.all()) as items:
            asyncio.get_running_loop().call_later(0.01, stops.leave, "one")
            async for _ in until(stops.of("one"), items):
                pass

    asyncio.run(asyncio.wait_for(ask(), 10))
    assert numbers.closed
    stops.leave("nobody")
    assert not stops.of("one").is_set()


def test_an_answer_that_nobody_stops_comes_whole_and_its_fault_is_seen() -> None:
    async def ask(items: AsyncGenerator[int, None]) -> list[int]:
        return [number async for number in until(asyncio.Event(), items)]

    async def failing() -> AsyncGenerator[int, None]:
        yield 1
        raise words.Fault("gone")

    assert asyncio.run(ask(Numbers(3, waits=False).all())) == [0, 1, 2]
    with pytest.raises(words.Fault, match="gone"):
        asyncio.run(ask(failing()))


def test_a_stop_is_for_one_person_and_one_answer() -> None:
    stops = Stops()
    for session in ("one", "two"):
        stops.begin(session)
    first = stops.of("one")
    stops.stop("one")
    stops.stop("nobody")
    assert first.is_set()
    assert not stops.of("two").is_set()
    stops.end("one")
    stops.end("one")
    stops.begin("one")
    assert not stops.of("one").is_set()


@pytest.mark.parametrize(
    ("status", "error", "retry_after", "sentence"),
    [
        (401, {"message": "no"}, None, "The endpoint does not know this API key."),
        (
            404,
            {"message": "The model `llama` does not exist.", "code": "model_not_found"},
            None,
            "has no model llama any",
        ),
        (404, {"message": "There is no /v1/x here", "code": "unknown_url"}, None, "not as an OpenAI endpoint does"),
        (400, {"message": VLLM_TOO_LONG}, None, "do not fit into the model's context of 4,096 tokens."),
        (400, {"message": errors.too_much(512, 600, "max_tokens").args[0]}, None, "context of 512 tokens"),
        (400, {"message": "no", "code": "context_length_exceeded"}, None, "do not fit into the model's context."),
        (
            413,
            {"message": "The request is too large", "code": "request_too_large"},
            None,
            "do not fit into the model's",
        ),
        (429, {"message": "Slow down."}, "1", "too many requests now. Try again in 1 second. It says: Slow down."),
        (429, {}, None, "too many requests now. Try again in a moment."),
        (503, {"message": "No cell is up."}, "5", "No cell of llama can answer now. Try again in 5 seconds."),
        (503, {}, "300", "Try again in 5 minutes."),
        (503, {}, "Wed, 21 Oct 2026 07:28:00 GMT", "Try again in a moment."),
        (502, {"message": "bad"}, None, "The endpoint failed (502)."),
        (
            400,
            {"message": "Conversation roles must alternate"},
            None,
            "(400). It says: Conversation roles must alternate",
        ),
    ],
)
def test_every_refusal_is_said_in_words(
    status: int, error: dict[str, str], retry_after: str | None, sentence: str
) -> None:
    assert sentence in words.refused(status, json.dumps({"error": error}), retry_after, ASKED)


def test_a_refusal_that_is_no_json_is_said_too() -> None:
    assert words.refused(502, "<html>bad gateway</html>", None, ASKED).startswith("The endpoint failed (502).")
    assert words.refused(400, '["x"]', None, ASKED) == "The endpoint refused the request (400)."
    assert words.refused(400, '{"error": "no"}', None, ASKED).endswith("It says: no")
    assert len(words.own("x" * 1000)) < 450


def test_who_sent_no_key_is_asked_for_one() -> None:
    assert (
        words.refused(401, "", None, words.Asked("u")) == "The endpoint asks for an API key. Enter yours at “API key”."
    )


class Answering(StubHandler):
    """Answers as its server was told to, and keeps what it was asked."""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.seen.append((self.path, self.headers.get("Authorization"), json.loads(body or b"null")))  # type: ignore[attr-defined]
        server.answer(self)  # type: ignore[attr-defined]
        self.close_connection = True


def stream(*events: str, whole: bool = True) -> Callable[[StubHandler], None]:
    """An answer in server-sent events; the connection breaks off if it is not ``whole``."""

    def answer(handler: StubHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for event in events:
            text = f"data: {event}\n\n"
            handler.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())
        handler.wfile.write(b"0\r\n\r\n" if whole else b"")

    return answer


def delta(text: str, finish: str | None = None) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]})


@contextmanager
def server(answer: Callable[[StubHandler], None]) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as found:
        found.seen, found.answer = [], answer  # type: ignore[attr-defined]
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def url_of(found: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{found.server_port}"


def answered(url: str, key: str = "", own_key: str = "") -> list[Piece]:
    async def ask() -> list[Piece]:
        return [piece async for piece in Endpoint(url, own_key).answer(QUESTION, key)]

    return asyncio.run(ask())


def fault(url: str, key: str = "") -> str:
    with pytest.raises(words.Fault) as found:
        answered(url, key)
    return str(found.value)


def test_an_answer_comes_in_pieces_with_its_usage() -> None:
    role = json.dumps({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    usage = json.dumps({"choices": [], "usage": {"completion_tokens": 2}})
    with server(stream(role, delta("Hel"), delta("lo"), delta("", "stop"), usage, "[DONE]")) as found:
        pieces = answered(f"{url_of(found)}/v1/", key="sk-mine", own_key="sk-own")
        ((path, authorization, body),) = found.seen  # type: ignore[attr-defined]
    assert pieces == [
        Piece(),
        Piece("Hel", delta=True),
        Piece("lo", delta=True),
        Piece(finish="stop"),
        Piece(tokens=2),
    ]
    assert (path, authorization) == ("/v1/chat/completions", "Bearer sk-mine")
    assert body["temperature"] == 0.5
    assert body["max_tokens"] == 64
    assert body["messages"] == QUESTION.messages


@pytest.mark.parametrize(
    "answer",
    [
        stream(delta("Hel"), whole=False),
        stream(delta("Hel")),  # it ends, and does not say why
        stream(delta("Hel"), "{"),
        stream(delta("Hel"), json.dumps({"error": {"message": "EngineDeadError"}}), "[DONE]"),
    ],
)
def test_an_answer_that_breaks_off_is_told(answer: Callable[[StubHandler], None]) -> None:
    with server(answer) as found:
        assert fault(url_of(found)).startswith("The answer broke off")


def test_a_connection_that_is_closed_before_the_answer_is_told() -> None:
    with server(lambda handler: None) as found:
        assert "closed the connection without an answer" in fault(url_of(found))


def test_something_else_that_listens_there_is_told() -> None:
    def page(handler: StubHandler) -> None:
        handler.send_whole(200, b"<html>", "text/html")

    with server(page) as found:
        assert "not as an OpenAI endpoint does" in fault(url_of(found))
        with pytest.raises(words.Fault, match="not as an OpenAI endpoint does"):
            asyncio.run(Endpoint(url_of(found)).models(""))


def test_an_address_where_nothing_listens_is_told() -> None:
    with server(lambda handler: None) as found:
        url = url_of(found)
    assert fault(url).startswith(f"Nothing answers at {url}.")


def test_a_key_that_no_header_can_carry_is_told_without_showing_it() -> None:
    for key in ("sk-ä", "sk one", "sk\r\nHost: x"):
        told = fault("http://127.0.0.1:1", key)
        assert told == words.unusable_key()
        assert key not in told


def test_a_certificate_that_is_not_trusted_is_told() -> None:
    assert "is not trusted here" in words.unreached("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate", ASKED)


def test_addresses_are_taken_with_and_without_v1() -> None:
    assert base_url("http://h:1/v1") == base_url("http://h:1/v1/") == base_url("http://h:1/") == "http://h:1"
    for wrong in ("h:1", "ftp://h", "http://"):
        with pytest.raises((ValueError, httpx.InvalidURL)):
            base_url(wrong)


def test_the_options_of_the_guide_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = arguments(["--host", "0.0.0.0", "--port", "7000", "--url", "http://h:1"])
    assert (asked.host, asked.port, asked.url, asked.key_file) == ("0.0.0.0", 7000, "http://h:1", None)
    assert (arguments([]).host, arguments([]).port) == ("127.0.0.1", 7860)
    monkeypatch.setenv("HETEROSERVE_API_KEY", "sk-env\n")
    assert key_of(None) == "sk-env"
    (tmp_path / "key").write_text("sk-file\n")
    assert key_of(tmp_path / "key") == "sk-file"
    assert key_of(None) == ""  # what the program starts does not inherit it
