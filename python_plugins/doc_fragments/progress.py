"""Option of modules whose action plugin shows what they are doing."""


class ModuleDocFragment:
    """``extends_documentation_fragment: [progress]``."""

    DOCUMENTATION = r"""
options:
  progress_path:
    description: File for the line that says what the module is doing. The action plugin sets it and shows the line.
    type: path
"""
