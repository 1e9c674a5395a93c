"""Tables of what vendors publish about their accelerators and processors, a file a vendor."""
