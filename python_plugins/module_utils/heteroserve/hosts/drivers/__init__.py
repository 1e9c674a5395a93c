"""GPU drivers of a host: what is there, what is wanted, and the plan (or the refusal) that follows."""
