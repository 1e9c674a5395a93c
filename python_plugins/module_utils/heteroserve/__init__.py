"""What the modules of HeteroServe share: facts and decisions as pure functions over dataclasses.

Standard library only: Ansible copies these files to the hosts, whose Python has nothing else.
"""
