"""The endpoint as clients and operators see it."""
