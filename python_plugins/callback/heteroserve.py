"""What an operator sees: the stages, one line for each result, tables as tables, one sentence for a failure.

With -v and more, Ansible's own output takes over, without what nobody can read.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: heteroserve
type: stdout
short_description: Stages, results and tables, without JSON
description:
  - One line for each task that did something, with the time it took; tasks that were skipped are not shown.
  - A result that carries C(report) is printed as it is; a failure is its message.
  - Under ansible-runner (AWX) that message is the artifact C(heteroserve_failure) too, for notifications.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

import json
import re
import time
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default

# What sudo says -> what to do. Ansible gives it at the end of a message about a broken stream.
SUDO = {
    r"password is required|[Mm]issing (sudo|become) password": (
        "sudo asks {user} for a password: run with -K, or allow it without (docs/hosts.md)"
    ),
    r"[Ii]ncorrect (sudo|become) password|incorrect password attempt|Sorry, try again": (
        "sudo does not take the password that was given for {user}: run again with -K"
    ),
    r"is not in the sudoers file|is not allowed to (run sudo|execute)": (
        "{user} may not use sudo: allow it (docs/hosts.md), or set ansible_user to an account that may"
    ),
    r"sudo: (command )?not found|executable: b?'?sudo": (
        "sudo is not installed: install it, or let Ansible log in as root"
    ),
}
QUIET_FROM_S = 2.0  # times shorter than this are not worth reading
MOST_SHOWN = 2000  # characters of a value with -v and -vv; plans and tables of hosts have more
MOST_TOLD = 500  # characters of a sentence that AWX sends to somebody
# Playbooks that are a part of a stage of another name.
PART_OF = {"k3s": "cluster"}


def sudo_fault(words: str, user: str) -> str | None:
    """One sentence for what sudo refused; None if it was not sudo."""
    found = next((said for pattern, said in SUDO.items() if re.search(pattern, words)), None)
    return found.format(user=user) if found else None


def why_failed(failures: dict[str, str]) -> str:
    """The sentence of the first host that failed, for a notification; how many there are, if more than one."""
    host, words = next(iter(failures.items()))
    words = " ".join(words.split())
    told = words if len(words) <= MOST_TOLD else f"{words[:MOST_TOLD]}..."
    more = f" ({len(failures)} hosts failed)" if len(failures) > 1 else ""
    return f"{told}{more}" if host == "localhost" or told.startswith(f"{host}: ") else f"{host}: {told}{more}"


class CallbackModule(Default):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "heteroserve"

    def __init__(self) -> None:
        super().__init__()
        self._started = time.monotonic()
        self._task_started: dict[str, float] = {}
        self._title = ""
        self._playbook, self._stage, self._stage_started = "", "", self._started
        self._took: dict[str, float] = {}
        self._failures: dict[str, str] = {}  # host -> why, of its last failure

    def __init_subclass__(cls, **options: Any) -> None:
        """ansible-runner's callback inherits from this one, and gives AWX the statistics before this one has them."""
        super().__init_subclass__(**options)
        theirs = cls.v2_playbook_on_stats

        def on_stats(self: CallbackModule, stats: Any) -> None:
            # A failure that was rescued is none.
            failed = {
                host: why for host, why in self._failures.items() if stats.failures.get(host) or stats.dark.get(host)
            }
            if failed:
                stats.set_custom_stats("heteroserve_failure", why_failed(failed))
            theirs(self, stats)

        cls.v2_playbook_on_stats = on_stats  # type: ignore[method-assign]

    @property
    def _verbose(self) -> bool:
        return self._display.verbosity > 0

    def _enter(self, stage: str) -> None:
        """Note how long the stage before took: a stage is a playbook, whatever plays it consists of."""
        now = time.monotonic()
        if self._stage:
            self._took[self._stage] = self._took.get(self._stage, 0.0) + now - self._stage_started
        self._stage, self._stage_started = stage, now

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._playbook = Path(play.get_path().rpartition(":")[0]).stem
        if self._verbose:
            super().v2_playbook_on_play_start(play)
            return
        self._play = play
        self._title = f"── {play.get_name().strip()} "

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if self._verbose:
            super().v2_playbook_on_no_hosts_matched()

    def _show_title(self) -> None:
        """The stage's name, once it has something to say: one that concerns no host of this inventory has not."""
        if self._title:
            self._display.display(f"\n{self._title}{'─' * max(4, 78 - len(self._title))}", color="bright blue")
            self._title = ""

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        # Plays that the tags leave out begin as well, and have no task.
        self._enter(PART_OF.get(self._playbook, self._playbook))
        self._task_started[task._uuid] = time.monotonic()
        if self._verbose:
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._task_started[task._uuid] = time.monotonic()
        if self._verbose:
            super().v2_playbook_on_handler_task_start(task)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if self._verbose:
            super().v2_playbook_on_include(included_file)

    def _line(self, result: Any, word: str, color: str, ending: str = "") -> None:
        self._show_title()
        took = time.monotonic() - self._task_started.get(result._task._uuid, time.monotonic())
        timing = f"  ({took:.0f} s)" if took >= QUIET_FROM_S else ""
        name = result._task.get_name().split(" : ", 1)[-1]
        self._display.display(f"  {word:<8} {result._host.get_name()}: {name}{timing}{ending}", color=color)

    def v2_runner_on_ok(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_on_ok(result)
            return
        data = result._result
        self._handle_warnings_and_exception(result)
        if result._task.action in ("ansible.builtin.include_tasks", "ansible.builtin.include_role"):
            return
        if result._task.action == "ansible.builtin.validate_argument_spec":
            return
        if data.get("report"):
            self._show_title()
            self._display.display("\n" + "\n".join(f"  {line}" for line in str(data["report"]).splitlines()) + "\n")
        elif data.get("changed"):
            self._line(result, "changed", C.COLOR_CHANGED)
        elif result._task.action in C._ACTION_DEBUG:
            self._display.display(f"  {data.get('msg', '')}")
        else:
            self._line(result, "ok", C.COLOR_OK)

    def _dump_results(self, result: Any, indent: int | None = None, *rest: Any, **options: Any) -> str:
        """A result with -v: several lines, a report as it is; only -vvv has what is large. A failure is whole.

        ansible-runner, which prints for AWX, does not know Ansible's option for the first.
        """
        if self._display.verbosity < 3 and not result.get("failed"):
            if result.get("report"):
                return f"\n\n{result['report']}"
            result = {
                key: f"not shown without -vvv ({size:,} characters)" if size > MOST_SHOWN else value
                for key, value in result.items()
                for size in [len(json.dumps(value, default=str))]
            }
        return str(super()._dump_results(result, indent or 4, *rest, **options))

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_item_on_ok(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_item_on_failed(result)
            return
        self._failure(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            self._note_failure(result)
        if self._verbose:
            super().v2_runner_on_failed(result, ignore_errors)
        elif not (result._task.loop and "results" in result._result):  # each item has said its own
            self._failure(result)

    def v2_runner_retry(self, result: Any) -> None:
        """A task that waits is no failure: one line when it begins to, and another for every ten tries."""
        if self._verbose:
            super().v2_runner_retry(result)
        elif result._result.get("attempts", 1) % 10 == 1:
            self._line(result, "waiting", C.COLOR_VERBOSE)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._note_failure(result)
        if self._verbose:
            super().v2_runner_on_unreachable(result)
            return
        self._failure(result, word="UNREACHABLE")

    def _note_failure(self, result: Any) -> None:
        items = [item for item in result._result.get("results") or [] if isinstance(item, dict) and item.get("failed")]
        self._failures[result._host.get_name()] = self._why(result, items[0] if items else result._result)

    @staticmethod
    def _why(result: Any, data: dict[str, Any]) -> str:
        """What failed, in the words of the module or of sudo."""
        words = str(data.get("msg") or data.get("censored") or "no message").strip()
        detail = str(data.get("stderr") or data.get("module_stderr") or "").strip()
        if detail and detail not in words:
            words = "\n".join([words, *detail.splitlines()[-6:]])
        user = result._task.remote_user or result._host.vars.get("ansible_user") or "the remote user"
        refused = sudo_fault(words, user)
        return f"{result._host.get_name()}: {refused}" if refused else words

    def _failure(self, result: Any, word: str = "FAILED") -> None:
        self._line(result, word, C.COLOR_ERROR)
        words = self._why(result, result._result)
        self._display.display("\n" + "\n".join(f"  {line}" for line in words.splitlines()) + "\n", color=C.COLOR_ERROR)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        super().v2_playbook_on_stats(stats)
        if self._verbose:
            return
        self._enter("")
        if len(self._took) > 1:
            rows = [f"  {stage:<12}{took:>6.0f} s" for stage, took in self._took.items()]
            self._display.display("\n".join(rows))
        self._display.display(f"took {time.monotonic() - self._started:.0f} s")
