"""Grafana's dashboards as code: ``python -m dashboards.generate`` writes them to roles/grafana/files.

The SDK is needed where they are generated only: hosts get JSON.
"""
