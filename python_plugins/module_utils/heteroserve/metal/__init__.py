"""Hosts without an operating system: what a BMC says of them, and what has to happen until SSH answers."""
