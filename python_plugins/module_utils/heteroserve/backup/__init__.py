"""What a backup of the state directory holds, and when it may be restored."""
