"""Requests that break the rules, and what the gateway has to answer: a status and the code of an OpenAI error.

HAProxy 2.6 and 2.8 answer what their parser refuses by themselves, with a page of HTML that no rule can change: of
those answers only the status is given. "cell" says that the request reaches a cell, which answers 200.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

PATH = "/v1/chat/completions"
CELL = "200 cell"


@dataclass(frozen=True)
class Hostile:
    """One request, as bytes, and what has to be answered, such as "404 unknown_url", "400" or "200 cell"."""

    name: str
    raw: bytes
    expected: str


def _body(text: bytes = b'{"model": "a"}', **more: object) -> bytes:
    return json.dumps({"model": "a", **more}).encode() if more else text


def _request(
    key: str,
    line: str | bytes = f"POST {PATH} HTTP/1.1",
    headers: str | bytes = "",
    body: bytes = b'{"model": "a"}',
    length: str | None = "",
    host: str = "Host: a\r\n",
    auth: str | None = None,
) -> bytes:
    """A request; ``length`` replaces that of the body, None leaves it out."""
    first = line.encode() if isinstance(line, str) else line
    more = headers.encode() if isinstance(headers, str) else headers
    signed = f"Authorization: Bearer {key}\r\n" if auth is None else auth
    size = "" if length is None else f"Content-Length: {length or len(body)}\r\n"
    return first + b"\r\n" + f"{host}{signed}".encode() + more + size.encode() + b"Connection: close\r\n\r\n" + body


def lines(key: str) -> Iterator[tuple[str, bytes, str]]:
    """Methods, targets and versions."""
    for method, expected in {
        "GET": "405 method_not_allowed",
        "HEAD": "405",
        "PUT": "405 method_not_allowed",
        "PATCH": "405 method_not_allowed",
        "DELETE": "405 method_not_allowed",
        "OPTIONS": "405 method_not_allowed",
        "TRACE": "405 method_not_allowed",
        "PRI": "400 bad_request",
        "post": "405 method_not_allowed",
        "POSTPOST": "405 method_not_allowed",
        "P@ST": "400",
        "P(ST": "400",
        "": "400",
    }.items():
        yield f"method {method!r}", _request(key, f"{method} {PATH} HTTP/1.1"), expected
    for version, expected in {
        "HTTP/1.0": CELL,
        "HTTP/0.9": "400 bad_request",
        "HTTP/1.2": "400 bad_request",
        "HTTP/2.0": "400 bad_request",
        "HTTP/11.1": "400",
        "http/1.1": "400",
        "HTTP/1": "400",
        "XTTP/1.1": "400",
        "": "400",
    }.items():
        yield f"version {version!r}", _request(key, f"POST {PATH} {version}"), expected
    for target, expected in {
        f"{PATH}?model=b": CELL,
        f"http://elsewhere{PATH}": "400",
        f"http://a{PATH}": CELL,
        f"{PATH}/": "404 unknown_url",
        f"/{PATH}": "404 unknown_url",
        "/V1/CHAT/COMPLETIONS": "404 unknown_url",
        "/v1/%63hat/completions": "404 unknown_url",
        "/v1/./chat/completions": "404 unknown_url",
        "/v1/x/../chat/completions": "404 unknown_url",
        "/v1/chat\\completions": "404 unknown_url",
        f"{PATH};x=1": "404 unknown_url",
        f"{PATH}%00": "404 unknown_url",
        f"{PATH}#x": "400",
        f"{PATH}\0": "400",
        f"{PATH}\t": CELL,
        "*": "404 unknown_url or 400",
        "": "400",
        "/metrics": "404 unknown_url",
        "/;csv": "404 unknown_url",
        "/health": "404 unknown_url",
        "/-/routes": "404 unknown_url",
        "/api/serve/applications/": "404 unknown_url",
        f"/{'x' * 10_000}": "404 unknown_url",
        f"/{'x' * 70_000}": "400 or 414",
        '/"}, "x": "': "400",
        "/%22%7D": "404 unknown_url",
    }.items():
        yield f"target {target[:40]!r}", _request(key, f"POST {target} HTTP/1.1"), expected
    yield "target in UTF-8", _request(key, "POST /é HTTP/1.1".encode()), "400"
    yield "CONNECT", _request(key, "CONNECT a:80 HTTP/1.1"), "404 unknown_url"


def headers(key: str) -> Iterator[tuple[str, bytes, str]]:
    """Fields that are malformed, too many, or meant for somebody else."""
    yield "no Host", _request(key, host=""), CELL
    yield "an empty Host", _request(key, host="Host:\r\n"), CELL
    yield "two different Hosts", _request(key, host="Host: a\r\nHost: b\r\n"), "400"
    for name, text, expected in (
        ("a space before the colon", "X-A : b\r\n", "400"),
        ("no name", ": b\r\n", "400"),
        ("no colon", "X-A\r\n", "400"),
        ("a folded line", "X-A: b\r\n c\r\n", CELL),
        ("a line that is folded onto the key", " c\r\n", "401 invalid_api_key"),
        ("NUL in a value", "X-A: b\0c\r\n", "400"),
        ("NUL in a name", "X\0A: b\r\n", "400"),
        ("a bare CR", "X-A: b\rc\r\n", "400"),
        ("a bare LF", "X-A: b\nX-B: c\r\n", CELL),
        ("a name in UTF-8", "é: b\r\n", "400"),
        ("a thousand fields", "".join(f"X-{number}: b\r\n" for number in range(1000)), "400"),
        ("a field of 20 KB", f"A: {'b' * 20_000}\r\n", CELL),
        ("a field of 70 KB", f"A: {'b' * 70_000}\r\n", "400 or 431"),
        ("an unknown expectation", "Expect: 200-ok\r\n", CELL),
        ("100-continue", "Expect: 100-continue\r\n", CELL),
        ("an upgrade to HTTP/2", "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", CELL),
        ("an upgrade to WebSocket", "Connection: Upgrade\r\nUpgrade: websocket\r\n", f"400 or {CELL}"),
        ("the key as a hop-by-hop field", "Connection: Authorization\r\n", CELL),
        ("the gateway's own field", "heteroserve-model: b/c\r\n", CELL),
        ("the gateway's own field, as a large request has it", "heteroserve-behind: x\r\n", CELL),
        ("a field of the access log", 'X-Request-ID: "}\r\nheteroserve-served: "}|x\r\n', CELL),
        ("Ray Serve's field", "serve_multiplexed_model_id: x\r\n", CELL),
        ("another method in a field", "X-HTTP-Method-Override: GET\r\n", CELL),
        ("another path in a field", "X-Original-URL: /metrics\r\n", CELL),
    ):
        yield name, _request(key, headers=text), expected
    for name, auth in {
        "no key": "",
        "an empty key": "Authorization:\r\n",
        "the scheme alone": "Authorization: Bearer\r\n",
        "the scheme and a space": "Authorization: Bearer \r\n",
        "a key without scheme": f"Authorization: {key}\r\n",
        "another scheme": f"Authorization: Basic {key}\r\n",
        "a key and more": f"Authorization: Bearer {key} x\r\n",
        "two keys with a comma": f"Authorization: Bearer {key}, Bearer {key}\r\n",
        "the key twice": f"Authorization: Bearer {key}\r\n" * 2,
        "a wrong and a right key": f"Authorization: Bearer x\r\nAuthorization: Bearer {key}\r\n",
        "the key in capitals": f"Authorization: Bearer {key.upper()}\r\n",
        "the key in quotes": f'Authorization: Bearer "{key}"\r\n',
        "the key in another field": f"X-Api-Key: {key}\r\n",
        "the key in Proxy-Authorization": f"Proxy-Authorization: Bearer {key}\r\n",
        "a key with a tab": f"Authorization: Bearer\t{key}\r\n",
        "a key of 8 KB": f"Authorization: Bearer {'k' * 8192}\r\n",
    }.items():
        yield name, _request(key, auth=auth), "401 invalid_api_key"
    yield "the key in the address", _request(key, f"POST {PATH}?api_key={key} HTTP/1.1", auth=""), "401 invalid_api_key"
    yield "no key and no path", _request(key, "POST /nowhere HTTP/1.1", auth=""), "401 invalid_api_key"
    yield "no key and 10 GB announced", _request(key, auth="", length="10000000000"), "401 invalid_api_key"


def framing(key: str) -> Iterator[tuple[str, bytes, str]]:
    """Where a body ends: what request smuggling is made of."""
    for length, expected in {
        "-1": "400",
        "+14": "400",
        "0x0e": "400",
        "14 ": CELL,
        "1 4": "400",
        "14, 14": CELL,
        "14, 15": "400",
        "14\r\nContent-Length: 15": "400",
        "14\r\nContent-Length: 14": CELL,
        "99999999999999999999999": "400",
        "10000000000": "413 request_too_large",
        "0": "400 missing_model",
    }.items():
        yield f"Content-Length {length!r}", _request(key, length=length), expected
    yield "no Content-Length", _request(key, length=None, body=b""), "400 missing_model"
    whole = b'e\r\n{"model": "a"}\r\n0\r\n\r\n'
    for coding, expected in {
        "chunked": CELL,
        "Chunked": CELL,
        "chunked, chunked": "400",
        "identity": "400",
        "gzip": "400",
        "gzip, chunked": "422",
        "chunked, gzip": "400",
        "xchunked": "400",
        "chunked\r\nTransfer-Encoding: identity": "400",
        "\x0bchunked": "400",
        '"chunked"': "400",
        "chunked;x=1": "400",
    }.items():
        raw = _request(key, headers=f"Transfer-Encoding: {coding}\r\n", length=None, body=whole)
        yield f"Transfer-Encoding {coding!r}", raw, expected
    chunked = "Transfer-Encoding: chunked\r\n"
    yield "chunked and Content-Length", _request(key, headers=chunked, length="5", body=whole), CELL
    for name, body, expected in (
        ("a chunk with an extension", b'e;x=1\r\n{"model": "a"}\r\n0\r\n\r\n', CELL),
        ("a chunk's size in capitals", b'E\r\n{"model": "a"}\r\n0\r\n\r\n', CELL),
        ("trailers", b'e\r\n{"model": "a"}\r\n0\r\nX-A: b\r\n\r\n', CELL),
        ("a chunk's size that is no number", b'g\r\n{"model": "a"}\r\n0\r\n\r\n', "400"),
        ("a chunk's size with 0x", b'0xe\r\n{"model": "a"}\r\n0\r\n\r\n', "400"),
        ("a negative chunk", b'-e\r\n{"model": "a"}\r\n0\r\n\r\n', "400"),
        ("a chunk's size beyond 64 bits", b'fffffffffffffffff\r\n{"model": "a"}\r\n0\r\n\r\n', "400"),
        ("a chunk that is longer than it says", b'd\r\n{"model": "a"}\r\n0\r\n\r\n', "400"),
        ("chunks that end with the first", b"0\r\n\r\n", "400 missing_model"),
    ):
        yield name, _request(key, headers=chunked, length=None, body=body), expected


def bodies(key: str) -> Iterator[tuple[str, bytes, str]]:
    """What is in the body."""
    for name, body, expected in (
        ("empty", b"", "400 missing_model"),
        ("not JSON", b"model=a", "400 missing_model"),
        ("an array", b'[{"model": "a"}]', "400 missing_model"),
        ("a string", b'"model"', "400 missing_model"),
        ("null", b"null", "400 missing_model"),
        ("no model", b'{"messages": []}', "400 missing_model"),
        ("the model deeper", b'{"x": {"model": "a"}}', "400 missing_model"),
        ("Model", b'{"Model": "a"}', "400 missing_model"),
        ("UTF-16", '{"model": "a"}'.encode("utf-16"), "400 missing_model"),
        ("a byte order mark", b'\xef\xbb\xbf{"model": "a"}', "400 missing_model"),
        ("single quotes", b"{'model': 'a'}", "400 missing_model"),
        ("a comment", b'/* */ {"model": "a"}', "400 missing_model"),
        ("model null", b'{"model": null}', "400 invalid_type"),
        ("model true", b'{"model": true}', "400 invalid_type"),
        ("model a number", b'{"model": 1}', "400 invalid_type"),
        ("model an array", b'{"model": ["a"]}', "400 invalid_type"),
        ("model an object", b'{"model": {"a": 1}}', "400 invalid_type"),
        ("model empty", b'{"model": ""}', "404 model_not_found"),
        ("model with spaces", b'{"model": " a "}', "404 model_not_found"),
        ("model in capitals", b'{"model": "A"}', "404 model_not_found"),
        ("model a backend", b'{"model": "model-a"}', "404 model_not_found"),
        ("model large", b'{"model": "large"}', "404 model_not_found"),
        ("model of 40 KB", b'{"model": "' + b"m" * 40_000 + b'"}', "404 model_not_found"),
        ("model with a quote", b'{"model": "a\\"b"}', "404 model_not_found"),
        ("model with a backslash", b'{"model": "a\\\\b"}', "404 model_not_found"),
        ("model with a line break", b'{"model": "a\\nb"}', "404 model_not_found"),
        ("model with HAProxy's format", b'{"model": "%[env(PATH)]"}', "404 model_not_found"),
        ("model a path", b'{"model": "../../etc/passwd"}', "404 model_not_found"),
        ("model in UTF-8", '{"model": "ä"}'.encode(), "404 model_not_found"),
        ("model of bytes that are no UTF-8", b'{"model": "\xff\xfe"}', "400 missing_model"),
        ("model with NUL", b'{"model": "a\\u0000b"}', "404 model_not_found"),
        ("model with an escaped line break", b'{"model": "a\\u000ab"}', "404 model_not_found"),
        ("model with a raw line break", b'{"model": "a\nb"}', "400 missing_model"),
        ("model with a raw NUL", b'{"model": "a\0b"}', "400 missing_model"),
        ("a NUL after the end", b'{"model": "a"}\0', "400 missing_model"),
        ("a NUL and more after the end", b'{"model": "a"}\0{"model": "b/c"}', "400 missing_model"),
        (
            "a NUL after the end of a large body",
            b'{"model": "a", "x": "' + b"x" * 100_000 + b'"}\0',
            "400 missing_model",
        ),
        ("model with an escaped slash", b'{"model": "b\\/c"}', CELL),
        ("model in escapes", b'{"\\u006dodel": "\\u0061"}', CELL),
        ("model with half a surrogate pair", b'{"model": "\\ud83d"}', "404 model_not_found"),
        ("model with half a surrogate pair in bytes", b'{"model": "a", "x": "\xed\xa0\xbd"}', "400 missing_model"),
        ("model twice", b'{"model": "c", "model": "b/c"}', CELL),
        ("model twice, the last unknown", b'{"model": "a", "model": "c"}', "404 model_not_found"),
        ("model twice, the last null", b'{"model": "a", "model": null}', "400 invalid_type"),
        ("model twice, the first null", b'{"model": null, "model": "a"}', CELL),
        ("model twice, the first escaped", b'{"\\u006Dodel": "a", "model": "c"}', "404 model_not_found"),
        ("model twice, far apart", b'{"model": "c", "x": "' + b"y" * 99_000 + b'", "model": "a"}', CELL),
        ("an escape that there is not", b'{"model": "a", "x": "\\x41"}', "400 missing_model"),
        ("a number that there is not", b'{"model": "a", "x": 01}', "400 missing_model"),
        ("a comma too many", b'{"model": "a",}', "400 missing_model"),
        ("two objects", b'{"model": "a"}{"model": "a"}', "400 missing_model"),
        ("half an object", b'{"model": "a", "x": [', "400 missing_model"),
        ("model in a message", b'{"model": "a", "messages": [{"content": "\\"model\\": \\"b\\""}]}', CELL),
        ("model in a tool", b'{"model": "a", "tools": [{"model": "b"}, {"model": "c"}]}', CELL),
        ("an escape in a message", b'{"model": "a", "messages": [{"content": "\\u0000 \\u00e4"}]}', CELL),
        ("model last", b'{"messages": "' + b"x" * 40_000 + b'", "model": "a"}', CELL),
        ("model last of a large body", b'{"messages": "' + b"x" * 200_000 + b'", "model": "a"}', CELL),
        ("a large body without a model", b'{"messages": "' + b"x" * 200_000 + b'"}', "400 missing_model"),
        ("a large body of an unknown model", b'{"m": "' + b"x" * 200_000 + b'", "model": "c"}', "404 model_not_found"),
        ("longer than a context of plain text", b'{"model": "a", "x": "' + b"x" * 1_500_000 + b'"}', CELL),
        ("too large", b'{"model": "a", "x": "' + b"x" * 2_100_000 + b'"}', "413 request_too_large"),
        ("nine hundred levels", b'{"model": "a", "x": ' + b"[" * 899 + b"]" * 899 + b"}", CELL),
        ("many thousand levels", b'{"model": "a", "x": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", "400 missing_model"),
    ):
        yield f"body: {name}", _request(key, body=body), expected
    big = b'{"model": "a", "x": "' + b"x" * 2_500_000 + b'"}'
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(big[i : i + 8000]), big[i : i + 8000]) for i in range(0, len(big), 8000))
    raw = _request(key, headers="Transfer-Encoding: chunked\r\n", length=None, body=pieces + b"0\r\n\r\n")
    yield "body: too large, in chunks", raw, "413 request_too_large"


def all_of_them(key: str) -> list[Hostile]:
    """The table, for a gateway with models a and b/c, this key, and bodies of up to 2 MiB."""
    return [Hostile(*one) for part in (lines, headers, framing, bodies) for one in part(key)]
