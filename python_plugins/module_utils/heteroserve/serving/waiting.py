"""When a cell counts as running, and when waiting for it is given up: pure decisions over the evidence."""

from __future__ import annotations

from dataclasses import dataclass

from ..cluster.evidence import Evidence, is_ready, made_of
from ..cluster.pods import Finding
from ..common.names import SPEC
from .diagnosis import STAYS, diagnose, progress
from .ray_serve import applications, verdict


@dataclass(frozen=True)
class Outlook:
    """Whether to go on waiting. ``fault`` is set where it is no use."""

    running: bool
    line: str  # what is to be shown meanwhile
    fault: str = ""


@dataclass
class Patience:
    """Remembers since when the same thing is the matter."""

    timeout_s: float
    kind: str = ""
    since_s: float = 0.0

    def judge(self, evidence: Evidence, spec: str) -> Outlook:
        """Look at the evidence, ``evidence.waited_s`` after the cell was applied."""
        if is_running(evidence, spec):
            return Outlook(True, f"{evidence.cell}: running")
        found = diagnose(evidence)
        now = evidence.waited_s
        if found is None:
            self.kind = ""
            line = progress(evidence)
            if now < self.timeout_s:
                return Outlook(False, line)
            return Outlook(False, line, f"{line}; it is not ready after {now:.0f} s: raise ray_service_timeout")
        out = self._is_out(found, now)
        return Outlook(False, found.text, found.text if out or now >= self.timeout_s else "")

    def judge_end(self, evidence: Evidence) -> str:
        """Why it is no use to wait any longer for a cell to go; "" where it is."""
        found = diagnose(evidence, STAYS)
        return found.text if found and self._is_out(found, evidence.waited_s) else ""

    def _is_out(self, found: Finding, now: float) -> bool:
        if found.kind != self.kind:
            self.kind, self.since_s = found.kind, now
        return now - self.since_s >= found.patience_s


def is_given_up(evidence: Evidence) -> bool:
    """Whether Serve failed to deploy the cell's application. It does not retry by itself."""
    said = verdict(applications(evidence), evidence.cell)
    return said.done and not said.ok


def is_running(evidence: Evidence, spec: str) -> bool:
    """Whether the cell serves what ``spec`` says: its pods are made of it and ready, and no others are left.

    A deleted pod answers until its time is over, and what is ready once stays so in KubeRay's status, so neither an
    answer nor that status shows it.
    """
    cluster, service = evidence.cluster, evidence.service
    if cluster is None or service is None or made_of(cluster, evidence.pods).get(SPEC) != spec:
        return False
    if len(evidence.pods) != len(evidence.hosts):
        return False
    if not all(is_ready(pod) and not pod["metadata"].get("deletionTimestamp") for pod in evidence.pods):
        return False
    active = ((service.get("status") or {}).get("activeServiceStatus") or {}).get("rayClusterName")
    return active == cluster["metadata"]["name"] and verdict(applications(evidence), evidence.cell).ok
