"""Tokens/s of every engine for processors, in one run on one machine: servers of this project, vLLM's, and plain loops.

    python tests/bench/bench_engines.py --weights FOLDER \\
        --serve onnx=PYTHON --serve bigdl=PYTHON --vllm PYTHON --loop genai=PYTHON:EXPORTED --loop optimum=PYTHON:FOLDER

Each PYTHON is that of an environment of its own (``state_dir/envs/NAME/bin/python``). All are started first. Then come
rounds in which each is asked in turn, so that what else the machine does meets all of them; the table has the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER = """
import importlib, json, sys, uvicorn
from serving.openai.surface import build
engine, path, port, arguments = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
module = importlib.import_module(f"serving.engines.{engine}")
made = module.load(path, module.Arguments.model_validate(arguments))
uvicorn.run(build(made, "model", engine, 64), host="127.0.0.1", port=port, log_level="warning")
"""
Measure = Callable[[int, int], float]


def environment(threads: int) -> dict[str, str]:
    """Variables of all engines: our package, the same number of threads, and threads that do not spin."""
    fixed = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "python_plugins" / "module_utils")]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }
    return {**os.environ, **fixed}


def served(port: int, stream: bool) -> Measure:
    """Answers of an OpenAI server to as many clients at once; as streams, or whole, as the loops give them."""

    def one(tokens: int, found: list[int]) -> None:
        body = {
            "prompt": "One, two, three,",
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            for line in answer:
                if b'"usage":{' in line.replace(b" ", b""):
                    found.append(json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"])

    def run(clients: int, tokens: int) -> float:
        found: list[int] = []
        threads = [threading.Thread(target=one, args=(tokens, found)) for _ in range(clients)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(found) != clients:
            raise RuntimeError(f"{clients - len(found)} of {clients} answers are missing")
        return sum(found) / (time.monotonic() - began)

    return run


def wait_for(port: int, process: subprocess.Popen[str], limit_s: float = 600) -> None:
    """Until a server answers. Raises ``RuntimeError`` if it ends or takes too long."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise RuntimeError(f"{process.args} does not answer")


def looped(process: subprocess.Popen[str]) -> Measure:
    """A process of engine_loops.py."""

    def run(clients: int, tokens: int) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{clients} {tokens}\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    return run


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", required=True)
    parser.add_argument("--serve", action="append", default=[], help="ENGINE[-QUANTIZATION|-none]=PYTHON")
    parser.add_argument("--vllm", help="PYTHON with vLLM")
    parser.add_argument("--dtype", default="float32", help="that vLLM and OpenVINO compute in")
    parser.add_argument("--loop", action="append", default=[], help="NAME=PYTHON:FOLDER")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--whole", action="store_true", help="ask for whole answers instead of streams")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=19500)
    asked = parser.parse_args()
    variables, started = environment(asked.threads), []
    measures: dict[str, Measure] = {}

    def start(*command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    try:
        port = asked.port
        for item in asked.serve:
            name, _, python = item.partition("=")
            engine, _, quantization = name.partition("-")
            arguments: dict[str, object] = {"max_model_len": 512, "max_num_seqs": 16, "threads": asked.threads}
            if quantization:
                arguments["quantization"] = None if quantization == "none" else quantization
            if engine == "openvino":
                arguments["dtype"] = asked.dtype
            wait_for(port, start(python, "-c", SERVER, engine, asked.weights, str(port), json.dumps(arguments)))
            measures[f"{name} (served)"] = served(port, not asked.whole)
            port += 1
        if asked.vllm:
            command = [asked.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", asked.weights]
            command += ["--served-model-name", "model", "--port", str(port), "--host", "127.0.0.1"]
            command += ["--max-model-len", "512", "--dtype", asked.dtype, "--enforce-eager", "--max-num-seqs", "16"]
            wait_for(port, start(*command))
            measures["vllm (served)"] = served(port, not asked.whole)
        for item in asked.loop:
            name, _, rest = item.partition("=")
            python, _, folder = rest.partition(":")
            process = start(
                python,
                str(Path(__file__).with_name("engine_loops.py")),
                name.partition("-")[0],
                folder,
                str(asked.threads),
                asked.dtype,
            )
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"{name} did not start")
            measures[f"{name} (loop)"] = looped(process)
        found: dict[tuple[str, int], list[float]] = defaultdict(list)
        for number in range(asked.rounds):
            for clients in asked.clients:
                for name, measure in measures.items():
                    found[name, clients].append(measure(clients, asked.tokens))
                    print(f"{number + 1} {clients:>3} {name:<24} {found[name, clients][-1]:7.1f}", file=sys.stderr)
        print(f"| engine | {' | '.join(f'{clients} at once' for clients in asked.clients)} |")
        print(f"|---|{'---|' * len(asked.clients)}")
        for name in measures:
            cells = [f"{statistics.median(found[name, clients]):.1f}" for clients in asked.clients]
            print(f"| {name} | {' | '.join(cells)} |")
    finally:
        for process in started:
            # vLLM's engine has processes of its own, which outlive a server that is killed.
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
