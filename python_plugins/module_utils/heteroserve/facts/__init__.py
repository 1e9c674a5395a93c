"""Parsers that turn what a host says of itself into ``hardware.Hardware``, a file a subject.

In each file the pure parsers come first (text in, dataclass out) and the probe that feeds them last.
``collect`` runs all probes; a probe that fails leaves a ``Problem`` and never takes the others with it.
"""
