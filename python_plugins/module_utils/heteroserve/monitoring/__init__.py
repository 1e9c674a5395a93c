"""What is measured, from where, and when somebody is told."""
