"""Trace files: our own lines, Azure's published CSV and Mooncake's published lines."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.bench.workload import Entry


class Line(BaseModel):
    """One line of our own format."""

    model_config = ConfigDict(extra="forbid")

    at: float = Field(ge=0)
    prompt_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    prefix: int | None = Field(default=None, ge=0)
    prefix_tokens: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _prefix_is_whole(self) -> Line:
        if (self.prefix is None) != (self.prefix_tokens == 0):
            raise ValueError("prefix and prefix_tokens belong together: give both or none")
        if self.prefix_tokens >= self.prompt_tokens:
            raise ValueError("prefix_tokens must be fewer than prompt_tokens")
        return self


class MooncakeLine(BaseModel):
    """A line of Mooncake's traces: milliseconds, lengths, and hashes of blocks, which are not used."""

    model_config = ConfigDict(extra="forbid")

    timestamp: float = Field(ge=0)
    input_length: int = Field(ge=1)
    output_length: int = Field(ge=1)
    hash_ids: list[int] = []


def read_trace(path: Path, speed: float) -> tuple[Entry, ...]:
    """Requests in the order of their times, the first at 0; ``speed`` 2 plays them twice as fast.

    Raises ``ValueError`` with one sentence that names the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ValueError(f"the trace {path} cannot be read: {fault}") from fault
    found = _csv_entries(path, text) if path.suffix == ".csv" else _line_entries(path, text)
    if not found:
        raise ValueError(f"the trace {path} has no request")
    found.sort(key=lambda entry: entry.at)
    begin = found[0].at
    return tuple(
        Entry((entry.at - begin) / speed, entry.prompt_tokens, entry.output_tokens, entry.prefix, entry.prefix_tokens)
        for entry in found
    )


def _line_entries(path: Path, text: str) -> list[Entry]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            if isinstance(data, dict) and "timestamp" in data:
                other = MooncakeLine.model_validate(data)
                found.append(Entry(other.timestamp / 1000, other.input_length, other.output_length))
            else:
                own = Line.model_validate(data)
                found.append(Entry(own.at, own.prompt_tokens, own.output_tokens, own.prefix, own.prefix_tokens))
        except ValidationError as fault:
            raise ValueError(f"the trace {path}, line {number}: {_first(fault)}") from fault
        except ValueError as fault:
            raise ValueError(f"the trace {path}, line {number}: it is no JSON ({fault})") from fault
    return found


def _first(fault: ValidationError) -> str:
    error = fault.errors()[0]
    place = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _csv_entries(path: Path, text: str) -> list[Entry]:
    """Azure's LLM inference traces: TIMESTAMP, ContextTokens, GeneratedTokens."""
    rows = csv.DictReader(text.splitlines())
    wanted = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}
    if missing := wanted - set(rows.fieldnames or ()):
        raise ValueError(
            f"the trace {path} lacks the column{'' if len(missing) == 1 else 's'} {', '.join(sorted(missing))}"
        )
    found = []
    for row in rows:
        try:
            # Azure writes seven digits of a second; Python reads six.
            when, _, fraction = row["TIMESTAMP"].partition(".")
            at = datetime.fromisoformat(when).timestamp() + float(f"0.{fraction or 0}")
            prompt, output = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        except (TypeError, ValueError) as fault:
            raise ValueError(f"the trace {path}, line {rows.line_num}: {fault}") from fault
        if prompt > 0 and output > 0:
            found.append(Entry(at, prompt, output))
    return found
