"""Job templates, run by ansible-runner in AWX's layout, on the hosts that test_rack.py has left.

    HETEROSERVE_TEST_KEEP=1 ./heteroserve test tests/cluster/test_rack.py -k "bare_hosts or serves_two"
    python -m tests.cluster.rack_jobs INVENTORY STATE [RELEASE]

INVENTORY is the folder that the test wrote, STATE its state directory (.cache/testcluster/state-10). A job has neither:
the project is a copy that it cannot write, its own state directory goes with it, and what lasts is on a host of the
group state, a folder of this machine to which STATE is copied first. With RELEASE (v1.34.4+k3s2) K3s is upgraded, too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.helpers.awx_jobs import ROOT, STATE_PASSWORD, UID, Node

HOST = "agent-2"
# ssh asks for the account's name. In a container the image's entrypoint makes one up.
NAMED = 'mount --bind "$1" /etc/passwd; shift; exec "$@"'


class NamedNode(Node):
    """An execution node whose jobs reach hosts by SSH."""

    def command(self, folder: Path, sent: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        """The account gets a name, and its home is the job's folder."""
        known = folder.parent / "passwd"
        known.write_text(f"{Path('/etc/passwd').read_text()}runner:x:{UID}:0::{folder}:/bin/sh\n")
        words, environment = super().command(folder, sent)
        return ["unshare", "--mount", "sh", "-c", NAMED, "sh", str(known), *words], environment


def filled(node: Node, state: Path) -> None:
    """Give the state host what the installation's own state directory has, by a run that changes nothing."""
    node._script()  # writes the file with the group
    given = json.dumps({"state_dir": str(state), "backup_password": STATE_PASSWORD})
    words = ["-i", str(node.inventory), "-i", str(node.folder / "state.yml"), "-e", given]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    subprocess.run(["ansible-playbook", "playbooks/keys.yml", *words], cwd=ROOT, env=environment, check=True)
    for path in (node.kept, *node.kept.iterdir()) if node.kept else ():
        os.chown(path, UID, 0)


def main(inventory: str, state: str, release: str = "") -> None:
    """Each job has to succeed."""
    folder = Path(tempfile.mkdtemp(prefix="heteroserve-jobs-"))
    folder.chmod(0o755)
    key = folder / "ssh_key"  # AWX hands it to the job's ssh-agent
    shutil.copy(ROOT / ".cache" / "testcluster" / "ssh_key", key)
    key.chmod(0o600)
    os.chown(key, UID, 0)
    variables: dict[str, Any] = {"ansible_ssh_private_key_file": str(key)}
    if release:  # where that account may read it
        shutil.copytree(ROOT / ".cache" / "testcluster" / "airgap" / release, folder / "airgap")
        variables |= {"k3s_version": release, "k3s_airgap_dir": str(folder / "airgap")}
    kept = folder / "kept"
    kept.mkdir()
    node = NamedNode(folder / "node", Path(inventory).resolve(), variables, kept)
    filled(node, Path(state).resolve())
    node.succeed("status")
    node.succeed("drain a host", drain_host=HOST)
    node.succeed("drain a host", drain_host=HOST, drain_state="absent")
    if release:
        node.succeed("upgrade K3s")
    node.succeed("health")
    print(f"jobs' output and the state host's folder: {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
