"""A page on which people talk to the endpoint: ``python -m serving.chatbot --url URL``."""
