"""A cell of the plan as objects for KubeRay: what to apply, in which order, and why a cell does not start."""
