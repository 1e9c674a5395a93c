"""Which host copies weights from which, in waves: whoever has them whole gives them to the next ones.

From one store to N hosts the store's network carries N copies, one after another. Here the number of sources grows with
each wave, and no host sends the same weights to more than ``fanout`` others. What a host gives is never trusted: files
are compared with the checksums of the store's manifest, and whoever gets a wrong one, or none, asks the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# So few hosts are served by the store alone: a tree would not be done before it.
FEW = 3
# A source that gives less, in bytes a second, is left (the module model_copy); so no wave takes longer.
SLOW = 1_000_000
LONGEST_S = 6 * 3600


@dataclass(frozen=True)
class Weights:
    """A model, an adapter or a draft model that the store has: who lacks it, and who had it whole before."""

    name: str
    size: int  # bytes
    lacking: tuple[str, ...]
    whole: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copy:
    """Weights on their way to a host, from another one or from the store."""

    name: str
    host: str
    source: str


@dataclass(frozen=True)
class Limits:
    """What bounds a wave."""

    store: str
    fanout: int  # hosts that one host gives the same weights to, in all; 0: the store gives them to all
    streams: int  # hosts that copy from one host at once
    most: int = 0  # hosts that copy at once, which is Ansible's forks; 0 for any number
    racks: Mapping[str, str] = field(default_factory=dict)  # of hosts; one in the same rack is asked first


@dataclass(frozen=True)
class Wave:
    """What is copied next, and why so."""

    copies: tuple[Copy, ...]
    why: str
    at_once: int = 0  # hosts that copy at once; 0: all of the wave

    def to(self, host: str) -> dict[str, str]:
        """The sources of what a host copies, by the names of the weights."""
        return {copy.name: copy.source for copy in self.copies if copy.host == host}

    def relays(self, store: str) -> tuple[str, ...]:
        """The hosts that give weights in this wave, beside the store."""
        return tuple(sorted({copy.source for copy in self.copies} - {store}))


def next_wave(weights: Iterable[Weights], done: tuple[Copy, ...], limits: Limits) -> Wave:
    """The copies to make after those that are ``done``; none when nobody lacks anything."""
    has: dict[str, set[str]] = {copy.name: set() for copy in done} | {item.name: set(item.whole) for item in weights}
    for copy in done:
        has[copy.name].add(copy.host)
    lacking = {item.name: [host for host in item.lacking if host not in has[item.name]] for item in weights}
    hosts = {host for names in lacking.values() for host in names}
    if not hosts:
        return Wave((), "every host has its weights")
    if limits.fanout == 0 or (not done and len(hosts) <= FEW):
        copies = tuple(Copy(name, host, limits.store) for name, own in lacking.items() for host in own)
        if limits.fanout == 0:
            return Wave(copies, f"{limits.store} gives to {_count(hosts)}: model_store_fanout is 0", limits.streams)
        return Wave(copies, f"{limits.store} gives to {_count(hosts)}, which are too few for a tree")
    tree = _Tree(limits, Counter((copy.source, copy.name) for copy in done))
    order = sorted(weights, key=lambda item: (len(has[item.name]), -item.size, item.name))
    # One host for each of the weights in turn, so that small ones get a source as early as large ones.
    while sum(tree.grow(item.name, lacking[item.name], has[item.name]) for item in order):
        pass
    sources, served = {copy.source for copy in tree.copies}, {copy.host for copy in tree.copies}
    verb = "gives" if len(sources) == 1 else "give"
    why = f"{_count(sources)} {verb} to {len(served)}; {len(hosts - served)} wait for the next wave"
    return Wave(tuple(tree.copies), why)


class _Tree:
    """One wave while it is being filled."""

    def __init__(self, limits: Limits, given: Counter[tuple[str, str]]) -> None:
        self.limits = limits
        self.given = given  # how often a source has given weights, in earlier waves too
        self.clients: dict[str, set[str]] = {}  # hosts that copy from a source in this wave
        self.reached: Counter[tuple[str, str]] = Counter()  # copies of weights into a rack in this wave
        self.copies: list[Copy] = []

    def grow(self, name: str, lacking: list[str], has: set[str]) -> bool:
        """Give weights to one more host; False if nobody may give them to anybody. Takes it from ``lacking``."""
        served = {host for clients in self.clients.values() for host in clients}
        room = not self.limits.most or len(served) < self.limits.most
        sources = [
            source for source in (*sorted(has), self.limits.store) if self.given[source, name] < self.limits.fanout
        ]
        # A rack that has none yet comes first: its hosts copy from each other afterwards, from other racks if need be.
        there = Counter(self.rack(host) for host in has) + Counter({rack: 1 for rack, of in self.reached if of == name})
        hosts = sorted(lacking, key=lambda host: there[self.rack(host)])
        for near in (True, False):
            for host in hosts if room else [host for host in hosts if host in served]:
                able = [
                    source
                    for source in sources
                    if self.able(source, host)
                    and (not near or not there[self.rack(host)] or self.rack(source) == self.rack(host))
                ]
                if able:
                    self.give(name, host, min(able, key=lambda source: self.cost(source, host, name)))
                    lacking.remove(host)
                    return True
        return False

    def able(self, source: str, host: str) -> bool:
        """Whether a source has room for a host. A host copies one after another, so a second copy takes no more."""
        clients = self.clients.get(source, set())
        return host in clients or len(clients) < self.limits.streams

    def cost(self, source: str, host: str, name: str) -> tuple[bool, bool, int, int, bool]:
        """The best source first: the one the host copies from anyway, one that is near, one that gives little."""
        clients = self.clients.get(source, set())
        far = self.rack(source) != self.rack(host)
        return (host not in clients, far, len(clients), self.given[source, name], source == self.limits.store)

    def give(self, name: str, host: str, source: str) -> None:
        self.given[source, name] += 1
        self.clients.setdefault(source, set()).add(host)
        self.reached[self.rack(host), name] += 1
        self.copies.append(Copy(name, host, source))

    def rack(self, host: str) -> str:
        return self.limits.racks.get(host, "")


def seconds(wave: Wave, source: str, sizes: Mapping[str, int]) -> int:
    """How long a host offers weights at most, should the run that asked for it be killed."""
    given = sum(sizes[copy.name] for copy in wave.copies if copy.source == source)
    return min(LONGEST_S, 600 + given // SLOW)


def takers(host: str, cells: Iterable[Mapping[str, object]], store: str, fanout: int) -> tuple[str, ...]:
    """Hosts that may copy weights from this one: those that serve a model of its own. The store gives to all."""
    served = [(cell["model"], set(_names(cell["hosts"]))) for cell in cells]
    serving = {name for _, hosts in served for name in hosts} - {store}
    if fanout == 0 or host == store or len(serving) <= FEW:
        return ()
    own = {model for model, hosts in served if host in hosts}
    return tuple(sorted({name for model, hosts in served if model in own for name in hosts} - {host, store}))


def _names(hosts: object) -> list[str]:
    assert isinstance(hosts, list | tuple)
    return [str(host) for host in hosts]


def _count(hosts: Iterable[str]) -> str:
    number = len(set(hosts))
    return "1 host" if number == 1 else f"{number} hosts"
