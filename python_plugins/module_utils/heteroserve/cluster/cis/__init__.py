"""The CIS benchmark of Kubernetes: what is looked at on hosts and in the cluster, and the report."""
