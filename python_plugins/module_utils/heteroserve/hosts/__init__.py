"""What a host needs before it carries a cell: preflight, tuning, firewall, swap, clock."""
