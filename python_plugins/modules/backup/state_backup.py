#!/usr/bin/python
"""Documentation of the action plugin state_backup, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: state_backup
short_description: Save the state directory to an encrypted archive, or restore it
description:
  - Saves what no run can make again - the plan, secrets, kubeconfig, the registry's authority, digests of images - and
    a snapshot of the cluster's database. Environments, weights and logs are left out.
  - The archive is encrypted as a whole by Ansible Vault, with a password that stands in no command line, and read
    again after it was written. Beside it is its SHA-256.
  - Restores nothing from an archive that is damaged, opens with another password or is of another inventory, and
    replaces no file that differs unless that is asked for.
options:
  state_dir: {description: The state directory., type: path, required: true}
  folder: {description: Where a backup is written., type: path}
  restore: {description: The backup to restore., type: path}
  password: {description: The backup's password., type: str, default: ""}
  password_file: {description: File that holds the password., type: path}
  runtime: {description: The inventory's runtime., type: str, required: true}
  hosts: {description: Hosts of the inventory., type: list, elements: str, required: true}
  version: {description: The version of HeteroServe., type: str, default: ""}
  snapshot:
    description: Snapshot of etcd to save; when a backup is restored, where its snapshot is written.
    type: path
  overwrite: {description: Whether files that differ are replaced., type: bool, default: false}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Write a backup
  state_backup:
    state_dir: "{{ state_dir }}"
    folder: /srv/backups
    password_file: /root/backup-password
    runtime: k3s
    hosts: "{{ groups['serving'] }}"
"""

RETURN = r"""
path: {description: The backup that was written., returned: with folder, type: str}
files: {description: Paths below the state directory that were restored., returned: with restore, type: list}
snapshot: {description: Name of the snapshot in the backup; empty if there is none., returned: with restore, type: str}
report: {description: What was done., returned: success, type: str}
"""
