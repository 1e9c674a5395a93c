"""How fast an OpenAI endpoint answers: a load, what became of every request, and a report."""
