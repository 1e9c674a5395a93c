"""Option of modules that call the Kubernetes API from the controller."""


class ModuleDocFragment:
    """``extends_documentation_fragment: [kubeconfig]``."""

    DOCUMENTATION = r"""
options:
  kubeconfig: {description: Kubeconfig file on the controller., type: path, required: true}
"""
