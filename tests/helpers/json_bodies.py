"""Bodies of requests, right and wrong, and what an engine reads in them: Python's own reader says."""

from __future__ import annotations

import json
import random

from hypothesis import strategies as st

MODELS = ("a", "b/c")  # of the gateway in tests/integration/test_gateway.py
SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
SPACES = ("", "", "", " ", "\n", "\t", "\r\n  ")
BROKEN = (*(bytes([one]) for one in b'"\\{}[],:0-.ex\x00\x0b\xff'), b"\\u", b"\xed\xa0\x80")
NUMBERS = ("0", "-0", "1", "-12", "1.5", "2e10", "-3.25E-2", "12345678901234567890", "NaN", "Infinity", "-Infinity")


def _text(content: str, chance: random.Random) -> str:
    """A string of JSON, each character raw or escaped in one of the ways that there are."""
    made = []
    for character in content:
        ways = [SHORT[character]] if character in SHORT else []
        if character == "/" or (character >= " " and character not in '"\\' and not "\ud800" <= character <= "\udfff"):
            ways += [character] * 3
        units = character.encode("utf-16-be", "surrogatepass")
        codes = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
        ways.append("".join(f"\\u{code.upper() if chance.random() < 0.5 else code}" for code in codes))
        made.append(chance.choice(ways))
    return f'"{"".join(made)}"'


def _container(opening: str, items: list[str], closing: str, chance: random.Random) -> str:
    def space() -> str:
        return chance.choice(SPACES)

    return f"{opening}{space()}{','.join(f'{space()}{item}{space()}' for item in items)}{closing}"


def _members(pairs: list[tuple[str, str]], chance: random.Random) -> str:
    return _container(
        "{", [f"{_text(key, chance)}{chance.choice(SPACES)}:{value}" for key, value in pairs], "}", chance
    )


CHANCES = st.integers(0, 2**32).map(random.Random)
NAMES = st.sampled_from(["model", "models", "Model", "messages", "x", "mödel", "model\0"])
WORDS = st.one_of(st.sampled_from([*MODELS, "model", "A", "a ", 'a"', "\U0001f600", "\ud83d"]), st.text(max_size=12))
SCALARS = st.one_of(st.builds(_text, WORDS, CHANCES), st.sampled_from(["true", "false", "null", *NUMBERS]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(_container, st.just("["), st.lists(inner, max_size=3), st.just("]"), CHANCES),
        st.builds(_members, st.lists(st.tuples(NAMES, inner), max_size=3), CHANCES),
    ),
    max_leaves=8,
)
MODEL = st.tuples(st.just("model"), st.one_of(st.builds(_text, st.sampled_from(MODELS), CHANCES), VALUES))
OBJECTS = st.builds(
    lambda before, model, after, chance: _members([*before, *model, *after], chance),
    st.lists(st.tuples(NAMES, VALUES), max_size=2),
    st.lists(MODEL, max_size=2),
    st.lists(st.tuples(NAMES, VALUES), max_size=2),
    CHANCES,
)


def _broken(text: bytes, at: int, removed: int, added: bytes) -> bytes:
    at %= len(text) + 1
    return text[:at] + added + text[at + removed :]


WHOLE = st.one_of(OBJECTS, OBJECTS, OBJECTS, VALUES).map(lambda text: text.encode("utf-8", "surrogatepass"))
BODIES = st.one_of(
    WHOLE,
    WHOLE,
    st.builds(_broken, WHOLE, st.integers(0, 2000), st.integers(0, 2), st.sampled_from(BROKEN)),
    st.binary(max_size=20),
)


def expected(body: bytes) -> str:
    """What the gateway has to do: name the model that it has to route to, or a status and a code."""
    try:
        read = json.loads(body.decode())
    except ValueError:
        return "400 missing_model"
    if not isinstance(read, dict) or "model" not in read:
        return "400 missing_model"
    if not isinstance(read["model"], str):
        return "400 invalid_type"
    return read["model"] if read["model"] in MODELS else "404 model_not_found"
