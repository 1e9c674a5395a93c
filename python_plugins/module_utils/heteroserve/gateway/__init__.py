"""The gateway: HAProxy's states."""
