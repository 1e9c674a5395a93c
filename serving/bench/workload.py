"""What is asked: lengths, shared beginnings, words. Pure functions: request N is the same in every process."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

# One token each, with the space before it, in the tokenizers of the Llama family.
_TEXT = """
time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room
mother area money story fact month lot right study book eye job word business issue side kind head house
service friend father power hour game line end member law car city name team minute idea body back parent face
level office door health person art war history party result change morning reason research girl guy moment
air teacher force
"""
WORDS = _TEXT.split()
FIRST_PRIME, SECOND_PRIME = 1_000_003, 998_244_353  # spread the seeds of neighbouring requests


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts or answers: evenly between two numbers, or log-normal with a median and a 90th percentile."""

    least: int
    most: int
    median: float | None = None
    p90: float | None = None

    def draw(self, rng: random.Random) -> int:
        """One length."""
        if self.median is None or self.p90 is None:
            return rng.randint(self.least, self.most)
        spread = math.log(self.p90 / self.median) / 1.2815515655446004  # the normal distribution's 90th percentile
        return min(self.most, max(self.least, round(rng.lognormvariate(math.log(self.median), spread))))

    def __str__(self) -> str:
        if self.median is not None:
            return f"median {self.median:g}, p90 {self.p90:g}, at most {self.most}"
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


@dataclass(frozen=True)
class Entry:
    """One request of a trace."""

    at: float  # seconds after the first
    prompt_tokens: int
    output_tokens: int
    prefix: int | None = None  # requests with the same number begin with the same text
    prefix_tokens: int = 0


@dataclass(frozen=True)
class Calibration:
    """Tokens of a prompt are ``fixed`` + ``per_word`` for each word, as the model's own count says."""

    fixed: float = 0.0
    per_word: float = 1.0

    def words(self, tokens: int) -> int:
        """Words whose prompt has this many tokens."""
        return max(1, round((tokens - self.fixed) / self.per_word))


def calibrated(short: tuple[int, int], long: tuple[int, int]) -> Calibration:
    """From two prompts, each with its words and the tokens that the endpoint counted."""
    per_word = (long[1] - short[1]) / (long[0] - short[0])
    if per_word <= 0:
        return Calibration()
    return Calibration(fixed=short[1] - per_word * short[0], per_word=per_word)


@dataclass(frozen=True)
class Workload:
    """A load's requests. ``description`` and ``source`` are printed in the report."""

    name: str
    prompt: Lengths
    output: Lengths
    description: str
    source: str = ""
    clients: tuple[int, ...] = (32, 256)
    prefixes: int = 0  # number of shared beginnings
    prefix_tokens: int = 0
    temperature: float = 1.0
    ignore_eos: bool = True
    seed: int = 1
    trace: tuple[Entry, ...] = field(default=(), repr=False)
    calibration: Calibration = Calibration()

    def request(self, index: int) -> tuple[str, int]:
        """The prompt's text and the tokens that are wanted of request ``index``."""
        rng = random.Random(self.seed * FIRST_PRIME + index * SECOND_PRIME)
        if self.trace:
            entry = self.trace[index % len(self.trace)]
            prompt, output = entry.prompt_tokens, entry.output_tokens
            number, shared = entry.prefix, entry.prefix_tokens if entry.prefix is not None else 0
        else:
            prompt, output = self.prompt.draw(rng), self.output.draw(rng)
            number = rng.randrange(self.prefixes) if self.prefixes else None
            shared = self.prefix_tokens
        own = self.calibration.words(prompt)
        if number is None or not shared:
            return " ".join(rng.choices(WORDS, k=own)), output
        same = min(round(shared / self.calibration.per_word), own - 1)
        beginning = random.Random(self.seed * FIRST_PRIME + number).choices(WORDS, k=same)
        return " ".join(beginning + rng.choices(WORDS, k=own - same)), output

    def words(self, index: int, count: int) -> str:
        """A prompt of ``count`` words, for calibration."""
        return " ".join(random.Random(self.seed * FIRST_PRIME - 1 - index).choices(WORDS, k=count))


GUIDE = Workload(
    name="guide",
    prompt=Lengths(14, 40),
    output=Lengths(256, 256),
    description="14 to 40 tokens asked, 256 answered, temperature 1",
    source="the load of Dell's guide to Llama 2 on heterogeneous PowerEdge servers",
)
SHAREGPT = Workload(
    name="sharegpt",
    prompt=Lengths(4, 8192, median=1730, p90=5696),
    output=Lengths(4, 2048, median=415, p90=834),
    description="ShareGPT's lengths: prompts with a median of 1730 tokens (p90 5696), answers of 415 (834)",
    source="log-normal through the median and p90 of openchat_sharegpt4 in Sarathi-Serve (OSDI 2024), table 2",
)
PREFIXES = Workload(
    name="prefixes",
    prompt=Lengths(576, 640),
    output=Lengths(128, 128),
    description="576 to 640 tokens asked, of which 512 are one of 8 shared beginnings, 128 answered",
    prefixes=8,
    prefix_tokens=512,
)
PROFILES = {workload.name: workload for workload in (GUIDE, SHAREGPT, PREFIXES)}


def fitted(workload: Workload, context: int | None) -> tuple[Workload, str | None]:
    """The load with lengths that a model's context holds, and what had to be changed."""
    if context is None:
        return workload, None
    if workload.trace:
        return _fitted_trace(workload, context)
    if workload.prompt.most + workload.output.most <= context:
        return workload, None
    output = replace(workload.output, most=min(workload.output.most, context // 2))
    output = replace(output, least=min(output.least, output.most))
    prompt = replace(workload.prompt, most=min(workload.prompt.most, context - output.most))
    prompt = replace(prompt, least=min(prompt.least, prompt.most))
    said = (
        f"Lengths are cut to the model's context of {context} tokens: at most {prompt.most} asked,"
        f" {output.most} answered."
    )
    return replace(workload, prompt=prompt, output=output), said


def _fitted_trace(workload: Workload, context: int) -> tuple[Workload, str | None]:
    fits = tuple(entry for entry in workload.trace if entry.prompt_tokens + entry.output_tokens <= context)
    if len(fits) == len(workload.trace):
        return workload, None
    left = len(workload.trace) - len(fits)
    if not fits:
        raise ValueError(f"no request of the trace fits into the model's context of {context} tokens")
    said = f"{left} of the trace's requests are left out: they exceed the model's context of {context} tokens."
    return replace(workload, trace=fits), said


def mean_tokens(lengths: Sequence[int]) -> float:
    """Mean of some lengths; 0 if there are none."""
    return sum(lengths) / len(lengths) if lengths else 0.0
