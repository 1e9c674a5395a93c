"""Engines of our own, each a Ray Serve application with the OpenAI surface."""
