"""What runs on the hosts, inside the engines' environments: Ray's supervision, model preparation, engine fixes."""
