"""What a benchmark asks and when: arrivals, lengths, prompts, traces and the command line."""

from __future__ import annotations

import json
import random
import statistics
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from serving.bench import arrivals
from serving.bench.options import parse, workload_of
from serving.bench.trace import read_trace
from serving.bench.workload import GUIDE, PREFIXES, SHAREGPT, Calibration, Lengths, calibrated, fitted


def pauses(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def test_even_arrivals() -> None:
    assert arrivals.even(4, 4, 1, 1) == [0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_the_rate_and_the_spread() -> None:
    found = pauses(arrivals.poisson(50, 20_000, 1, 1))
    assert statistics.mean(found) == pytest.approx(1 / 50, rel=0.03)
    # Of an exponential distribution mean and deviation are the same.
    assert statistics.stdev(found) == pytest.approx(1 / 50, rel=0.05)
    assert arrivals.poisson(50, 10, 1, 1) == arrivals.poisson(50, 10, 1, 1) != arrivals.poisson(50, 10, 1, 2)


def test_bursts_come_together_and_have_the_mean_rate() -> None:
    times = arrivals.bursts(50, 16_000, 8, 1)
    assert len(times) == 16_000
    assert len(set(times)) == 2000
    assert times == sorted(times)
    assert 16_000 / times[-1] == pytest.approx(50, rel=0.05)
    assert len(arrivals.bursts(50, 13, 8, 1)) == 13


def test_nothing_is_sent_after_the_time() -> None:
    assert arrivals.within([0, 1, 2, 3], 2) == [0, 1]


def test_lengths_of_sharegpt_have_the_published_median_and_p90() -> None:
    free = replace(SHAREGPT.prompt, most=10**9, least=1)
    drawn = sorted(free.draw(random.Random(number)) for number in range(20_000))
    assert drawn[10_000] == pytest.approx(1730, rel=0.03)
    assert drawn[18_000] == pytest.approx(5696, rel=0.05)


def test_the_guides_lengths() -> None:
    drawn = [GUIDE.request(number) for number in range(2000)]
    assert {len(text.split()) for text, _ in drawn} == set(range(14, 41))
    assert {tokens for _, tokens in drawn} == {256}
    assert len({text for text, _ in drawn}) == 2000


def test_a_request_is_the_same_in_every_process() -> None:
    assert replace(GUIDE).request(7) == GUIDE.request(7)
    assert replace(GUIDE, seed=2).request(7) != GUIDE.request(7)


def test_shared_beginnings() -> None:
    texts = [PREFIXES.request(number)[0].split() for number in range(200)]
    assert len({tuple(words[:512]) for words in texts}) == 8
    assert len({tuple(words[512:]) for words in texts}) == 200
    assert all(576 <= len(words) <= 640 for words in texts)


def test_words_are_counted_in_the_models_own_tokens() -> None:
    found = calibrated((16, 16 * 2 + 5), (80, 80 * 2 + 5))
    assert found == Calibration(fixed=5, per_word=2)
    assert found.words(45) == 20
    assert found.words(3) == 1
    assert calibrated((16, 9), (80, 9)) == Calibration()  # an endpoint that counts nothing


def test_lengths_are_cut_to_the_context() -> None:
    made, said = fitted(SHAREGPT, 4096)
    assert made.prompt.most + made.output.most <= 4096
    assert said
    assert "4096 tokens" in said
    assert fitted(GUIDE, 4096) == (GUIDE, None)
    assert fitted(GUIDE, None) == (GUIDE, None)


def test_a_trace_of_our_own(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    lines = [
        {"at": 3.0, "prompt_tokens": 100, "output_tokens": 5, "prefix": 1, "prefix_tokens": 60},
        {"at": 1.0, "prompt_tokens": 10, "output_tokens": 5},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    found = read_trace(path, 2.0)
    assert [entry.at for entry in found] == [0.0, 1.0]
    assert found[1].prefix_tokens == 60
    made = replace(GUIDE, trace=found)
    assert [len(made.request(number)[0].split()) for number in (0, 1)] == [10, 100]
    left, said = fitted(made, 50)
    assert len(left.trace) == 1
    assert said
    assert "1 of the trace's requests are left out" in said
    with pytest.raises(ValueError, match="no request of the trace fits"):
        fitted(made, 5)


def test_published_traces(tmp_path: Path) -> None:
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    found = read_trace(azure, 1.0)
    assert [round(entry.at, 3) for entry in found] == [0.0, 4.315]
    assert found[0].prompt_tokens == 374
    mooncake = tmp_path / "mooncake.jsonl"
    mooncake.write_text('{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n')
    assert read_trace(mooncake, 1.0)[0].output_tokens == 52


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", None, "cannot be read"),
        ("a.jsonl", "", "has no request"),
        ("a.jsonl", "{", "line 1: it is no JSON"),
        ("a.jsonl", '{"at": 0, "prompt_tokens": 1}', "line 1: output_tokens: Field required"),
        ("a.jsonl", '{"at": 0, "prompt_tokens": 9, "output_tokens": 1, "x": 1}', "x: Extra inputs"),
        ("a.jsonl", '{"at": 0, "prompt_tokens": 9, "output_tokens": 1, "prefix": 1}', "belong together"),
        ("a.csv", "TIMESTAMP,Tokens\n", "lacks the columns ContextTokens, GeneratedTokens"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nnow,1,1\n", "line 2"),
    ],
)
def test_a_wrong_trace_is_named_with_its_line(name: str, text: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        read_trace(path, 1.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--clients 0", "argument --clients: found '0', expected a whole number from 1 to 20000"),
        ("--clients 1,x", "found 'x'"),
        ("--rate 0", "argument --rate: found '0', expected a number above 0"),
        ("--rate inf", "found 'inf'"),
        ("--seconds -1", "argument --seconds: found '-1', expected a number above 0"),
        ("--clients 1 --rate 1", "give --clients (closed loop) or --rate (open loop), not both"),
        ("--prompt-tokens 40-14", "argument --prompt-tokens: found '40-14', expected tokens such as 256, or 14-40"),
        ("--url localhost:8080", "argument --url: found 'localhost:8080', expected an address such as"),
        ("--url http://a --null", "only one endpoint is measured"),
        ("--null -i inventory/dell", "only one endpoint is measured"),
        ("--trace a.jsonl --clients 3", "a trace has its own times"),
        ("--require tokens_per_s", "argument --require: found 'tokens_per_s', expected NAME>=NUMBER"),
        ("--require nothing>=1", "argument --require: there is no figure 'nothing'"),
        ("--profile gide", "argument --profile: invalid choice: 'gide'"),
        ("--unknown", "unrecognized arguments: --unknown"),
    ],
)
def test_wrong_options_are_one_sentence(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(words.split())
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_options_change_the_profile() -> None:
    made = workload_of(
        parse(["--prompt-tokens", "64", "--output-tokens", "8-16", "--temperature", "0", "--stop-at-eos"])
    )
    assert made.prompt == Lengths(64, 64)
    assert made.output == Lengths(8, 16)
    assert made.temperature == 0
    assert not made.ignore_eos
    assert "64 tokens asked instead" in made.description
    assert workload_of(parse([])).clients == (32, 256)
    assert parse(["--clients", "256,1,32,1"]).clients == [1, 32, 256]
    assert parse(["--url", "http://host:1/v1/"]).url == "http://host:1"


def test_a_beginning_must_fit_into_the_prompt() -> None:
    with pytest.raises(
        ValueError, match="--prefix-tokens: a beginning of 256 tokens needs longer prompts than 14 tokens"
    ):
        workload_of(parse(["--prefixes", "4"]))
