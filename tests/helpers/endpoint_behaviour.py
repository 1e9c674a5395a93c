"""What clients see of an endpoint, whatever runs below it: written once, run against every runtime."""

from __future__ import annotations

import openai
import pytest

MODEL = "smollm2-135m-instruct"
QUESTION = {"role": "user", "content": "What is the capital of France?"}


class EndpointBehaviour:
    """Tests of an endpoint that the fixture ``client`` calls; ``context`` are the tokens of MODEL in the inventory."""

    context: int
    models: tuple[str, ...] = (MODEL,)  # of the endpoint

    def test_models_are_listed(self, client: openai.OpenAI) -> None:
        assert tuple(model.id for model in client.models.list()) == self.models

    def test_a_chat_is_answered_with_usage(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model=MODEL, messages=[QUESTION], temperature=0, max_tokens=20)  # type: ignore[list-item]
        assert "Paris" in (answer.choices[0].message.content or "")
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 10
        assert 1 < answer.usage.completion_tokens < 20

    def test_a_chat_with_a_temperature_is_answered(self, client: openai.OpenAI) -> None:
        """As most clients ask: what they leave out is sampled at temperature 1."""
        for options in ({}, {"temperature": 0.7, "top_p": 0.9, "seed": 1, "logprobs": True}):
            answer = client.chat.completions.create(model=MODEL, messages=[QUESTION], max_tokens=8, **options)  # type: ignore[call-overload]
            assert answer.choices[0].message.content

    def test_a_chat_is_streamed_piece_by_piece(self, client: openai.OpenAI) -> None:
        pieces, usage = [], None
        for event in client.chat.completions.create(
            model=MODEL,
            messages=[QUESTION],  # type: ignore[list-item]
            temperature=0,
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
        ):
            usage = event.usage or usage
            pieces += [choice.delta.content for choice in event.choices if choice.delta.content]
        assert "Paris" in "".join(pieces)
        assert len(pieces) > 3
        assert usage is not None
        assert usage.completion_tokens >= len(pieces)

    def test_a_completion_is_answered(self, client: openai.OpenAI) -> None:
        answer = client.completions.create(model=MODEL, prompt="One, two, three,", temperature=0, max_tokens=4)
        assert "four" in answer.choices[0].text.lower()

    def test_an_unknown_model_is_not_found(self, client: openai.OpenAI) -> None:
        known = f"does not exist. Known are: {', '.join(self.models)}"
        with pytest.raises(openai.NotFoundError, match=known) as caught:
            client.chat.completions.create(model="gpt-4", messages=[QUESTION])  # type: ignore[list-item]
        assert caught.value.code == "model_not_found"

    def test_a_prompt_longer_than_the_context_is_refused(self, client: openai.OpenAI) -> None:
        long = {"role": "user", "content": "word " * (self.context + self.context // 4)}
        with pytest.raises(openai.BadRequestError, match=str(self.context)):
            client.chat.completions.create(model=MODEL, messages=[long])  # type: ignore[list-item]

    def test_a_body_that_the_gateway_has_no_room_for_is_refused(self, client: openai.OpenAI) -> None:
        long = {"role": "user", "content": "word " * 3_500_000}
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=MODEL, messages=[long])  # type: ignore[list-item]
        assert caught.value.status_code == 413
        assert caught.value.code == "request_too_large"
