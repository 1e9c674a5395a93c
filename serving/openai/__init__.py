"""The OpenAI surface of engines without a server of their own: requests, answers and errors are as vLLM's."""
