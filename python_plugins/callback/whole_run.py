"""Refuses runs that would end well without having done what was asked for, and lets local plays run under any limit.

Ansible skips a play that no host matches and a tag that nothing has, and calls it a success.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: whole_run
type: aggregate
short_description: Refuse runs that would do nothing
description:
  - Ends a run at once where the version of Ansible is too old, and where a tag names nothing in the playbook.
  - Ends a run that did nothing on any host with status 1.
  - Adds localhost to what C(--limit) leaves, because local plays read the plan and speak to the cluster for all hosts.
  - Where the environment names a proxy, adds the inventory's hosts to its exceptions, for local tasks that ask the
    cluster's API.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

from ansible import __version__, context
from ansible import constants as C
from ansible.plugins.callback import CallbackBase

# Of ansible-core; requirements/control.txt has the version that is tested.
NEEDED = (2, 19)
PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
# Tags that Ansible gives a meaning of its own.
SPECIAL = {"all", "always", "never", "tagged", "untagged"}
MOLECULES = "notest"  # how the tags end that Molecule leaves out of its runs


def version_fault(found: str) -> str | None:
    """What is wrong with a version of ansible-core."""
    if tuple(int(part) for part in found.split(".")[:2]) >= NEEDED:
        return None
    return (
        f"found ansible-core {found}, need {'.'.join(map(str, NEEDED))} or newer: run ./heteroserve, which installs it,"
        " or pip install -r requirements/control.txt"
    )


def unknown_tags(asked: list[str], known: set[str]) -> list[str]:
    """Tags of the command line that nothing in the playbook has."""
    return [tag for tag in asked if tag not in known | SPECIAL and not tag.endswith(MOLECULES)]


def _tags(item: Any) -> Iterator[str]:
    """Tags of a play or block and of all that is in it, as far as it is known before the run."""
    yield from item.tags
    for part in [*getattr(item, "block", []), *getattr(item, "rescue", []), *getattr(item, "always", [])]:
        yield from _tags(part)


def spare(hosts: list[str]) -> None:
    """Let this run's local tasks reach hosts without the environment's proxy."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [*known.split(","), "localhost", "127.0.0.1", "::1", *map(str, hosts)]
    without = ",".join(dict.fromkeys(name.strip() for name in names if name.strip() and "{{" not in name))
    os.environ |= {"no_proxy": without, "NO_PROXY": without}


def _refuse(words: str) -> None:
    """End the run. Not an exception of Ansible's: those of a callback are only warned of."""
    print(f"heteroserve: {words}", file=sys.stderr, flush=True)
    raise SystemExit(1)


class CallbackModule(CallbackBase):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "whole_run"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self) -> None:
        super().__init__()
        if fault := version_fault(__version__):
            _refuse(fault)
        self._unmatched: list[str] = []

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Check the tags, and let local plays through the limit."""
        plays = playbook.get_plays()
        known = {tag for play in plays for part in [play, *play.tasks, *play.pre_tasks] for tag in _tags(part)}
        asked = [*context.CLIARGS.get("tags", ()), *context.CLIARGS.get("skip_tags", ())]
        if wrong := unknown_tags(asked, known):
            there = f"it has {', '.join(sorted(known - SPECIAL))}" if known - SPECIAL else "it has no tags"
            _refuse(f"{', '.join(wrong)}: no such tag in {playbook._file_name}; {there}. Nothing was done.")
        inventory = plays[0].get_variable_manager()._inventory if plays else None
        if inventory is not None and inventory._subset:
            left = inventory._evaluate_patterns(inventory._subset)
            inventory._subset = list(dict.fromkeys([*(host.name for host in left), "localhost"]))
        if inventory is not None and any(os.environ.get(name) for name in PROXIES):
            spare([*inventory.hosts, *(host.vars.get("ansible_host", "") for host in inventory.hosts.values())])

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Remember the play, in case no host matches."""
        self._play = play

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Note which hosts the play is for."""
        wanted = self._play.hosts
        self._unmatched += [wanted] if isinstance(wanted, str) else wanted

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Nothing on any host is no success."""
        if stats.processed:
            return
        wanted = ", ".join(dict.fromkeys(self._unmatched)) or "any play"
        limit = context.CLIARGS.get("subset")
        places = ", ".join(context.CLIARGS.get("inventory") or C.DEFAULT_HOST_LIST)
        where = (
            f"--limit {limit} leaves no host for {wanted}"
            if limit
            else f"the inventory {places} has no host for {wanted}"
        )
        _refuse(f"nothing was done: {where}")
