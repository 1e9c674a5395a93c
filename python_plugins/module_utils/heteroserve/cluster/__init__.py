"""The Kubernetes cluster below the cells: K3s, its nodes, KubeRay, accelerators as it counts them."""
