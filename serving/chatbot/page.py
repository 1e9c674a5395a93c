"""The page: a conversation, and beside it whom to ask and how. What is sent and said is decided in other files."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from serving.chatbot import words
from serving.chatbot.conversation import before_last_question, fault, note, prompt, said
from serving.chatbot.endpoint import Endpoint, Question
from serving.chatbot.figures import ANSWERING, STOPPED, Figures
from serving.chatbot.stops import Stops, until

logger = logging.getLogger("serving.chatbot")

TITLE = "HeteroServe"
# The page is sent what is new at most this often: an engine can be faster than a browser draws.
DRAW_S = 0.05
# Fonts of the reader's own machine: Gradio's themes would fetch theirs from the web.
THEME = gr.themes.Default(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "Consolas", "monospace"], primary_hue="blue"
)
CSS = "#chat small { color: var(--body-text-color-subdued); }"
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}


class Page:
    """What the page does. Each person's conversation lies in their browser; nothing is kept here."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.stops = Stops()

    async def models(self, key: str | None, chosen: str | None) -> tuple[Any, str]:
        """The models to choose from, or why they are not known; those that were known stay."""
        try:
            names = await self.endpoint.models(key)
        except words.Fault as why:
            return gr.update(), f"⚠️ {why}"
        value = chosen if chosen in names else next(iter(names), None)
        return gr.update(choices=names, value=value), "" if names else "The endpoint has no models."

    async def answer(
        self,
        history: list[Any],
        model: str | None,
        system: str | None,
        temperature: float,
        length: float,
        key: str | None,
        request: gr.Request,
    ) -> AsyncGenerator[list[Any], None]:
        """The conversation with the answer to its last question, again and again until the answer has ended."""
        if not history or history[-1]["role"] != "user":
            return
        if not model:
            yield [*history, fault(words.no_model())]
            return
        question = Question(model, prompt(history, system or ""), float(temperature), int(length))
        figures = Figures(time.monotonic(), length=int(length))
        stop = self.stops.of(session_of(request))
        text, why, drawn = "", "", 0.0
        yield [*history, note(figures.line(ANSWERING))]
        try:
            async with aclosing(self.endpoint.answer(question, key)) as pieces:
                async for piece in until(stop, pieces):
                    now = time.monotonic()
                    text += piece.text
                    figures = figures.after(piece, now)
                    if piece.text and now - drawn >= DRAW_S:
                        drawn = now
                        yield [*history, said("assistant", text), note(figures.line(ANSWERING))]
        except words.Fault as known:
            why = str(known)
        except Exception as unknown:
            # Without its own words, which may be some of the conversation's.
            place = "".join(traceback.format_tb(unknown.__traceback__))
            logger.error("An answer failed with %s:\n%s", type(unknown).__name__, place)
            why = "The chatbot itself failed; its log says why."
        shown = [said("assistant", text)] if text else []
        if text or not why:
            shown.append(note(figures.line(STOPPED if stop.is_set() and not figures.finish else "")))
        yield [*history, *shown, *([fault(why)] if why else [])]

    def busy(self, request: gr.Request) -> Any:
        """The box while an answer comes."""
        self.stops.begin(session_of(request))
        return gr.update(submit_btn=False, stop_btn="Stop", interactive=False)

    def ready(self, request: gr.Request) -> Any:
        """The box when the answer has ended."""
        self.stops.end(session_of(request))
        return gr.update(submit_btn="Send", stop_btn=False, interactive=True)

    async def stop(self, request: gr.Request) -> None:
        """End the answer where it is."""
        self.stops.stop(session_of(request))

    async def left(self, request: gr.Request) -> None:
        """The page was closed: nobody waits for its answer any more.

        Gradio closes such an answer itself, but not one whose page went before it had opened its stream of events;
        that one was computed to its end.
        """
        self.stops.leave(session_of(request))

    @staticmethod
    def again(history: list[Any]) -> list[Any]:
        """The conversation with its last question unanswered."""
        before, text = before_last_question(history)
        return [*before, said("user", text)] if text else before

    @staticmethod
    def edited(history: list[Any], edit: gr.EditData) -> list[Any]:
        """The conversation up to the edited question, which is asked again."""
        place = edit.index[0] if isinstance(edit.index, list | tuple) else edit.index
        return [*history[:place], said("user", str(edit.value))]


def session_of(request: gr.Request) -> str:
    """Whose page it is."""
    return request.session_hash or ""


def build(endpoint: Endpoint) -> gr.Blocks:
    """The page of an endpoint."""
    page = Page(endpoint)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_height=True, fill_width=True) as blocks:
        with gr.Sidebar(open=True, width=300):
            gr.Markdown(f"## {TITLE}\n`{endpoint.url}/v1`")
            model = gr.Dropdown(label="Model", choices=[], interactive=True, elem_id="model")
            trouble = gr.Markdown(elem_id="trouble")
            reload = gr.Button("Reload models", size="sm", elem_id="reload")
            key = gr.Textbox(
                label="API key",
                type="password",
                visible=not endpoint.has_key,
                elem_id="key",
                max_lines=1,
                info="Only where the endpoint asks for one. It is not kept.",
            )
            system = gr.Textbox(
                label="System prompt", lines=3, elem_id="system", info="How the model is to answer; may be empty."
            )
            temperature = gr.Slider(0, 2, value=0.7, step=0.1, label="Temperature", elem_id="temperature")
            length = gr.Slider(
                1, 8192, value=512, step=1, label="Length", info="Tokens that an answer may have.", elem_id="length"
            )
        chat = gr.Chatbot(
            show_label=False,
            scale=1,
            height=None,
            editable="user",
            buttons=["copy", "copy_all"],
            allow_tags=False,
            elem_id="chat",
            placeholder="Ask something.",
            feedback_options=None,
        )
        box = gr.Textbox(
            show_label=False,
            placeholder="Message",
            autofocus=True,
            submit_btn="Send",
            stop_btn=False,
            max_lines=10,
            elem_id="box",
        )

        asked = box.submit(
            lambda text, history: ("", [*history, said("user", text)]) if text.strip() else (text, history),
            [box, chat],
            [box, chat],
            queue=False,
            **PRIVATE,
        )
        asked_again = chat.retry(page.again, chat, chat, queue=False, **PRIVATE)
        edited = chat.edit(page.edited, chat, chat, queue=False, **PRIVATE)
        for begun in (asked, asked_again, edited):
            busy = begun.then(page.busy, None, box, queue=False, **PRIVATE)
            answered = busy.then(
                page.answer, [chat, model, system, temperature, length, key], chat, concurrency_limit=None, **PRIVATE
            )
            answered.then(page.ready, None, box, queue=False, **PRIVATE)
        box.stop(page.stop, None, None, queue=False, **PRIVATE)
        blocks.unload(page.left)
        chat.undo(before_last_question, chat, [chat, box], queue=False, **PRIVATE)

        # "always_last": what is triggered while an answer is awaited, as by a key, is done after it and not dropped.
        asks = {"fn": page.models, "inputs": [key, model], "outputs": [model, trouble], **PRIVATE}
        gr.on([blocks.load, reload.click, key.submit, key.blur], trigger_mode="always_last", **asks)
    return blocks
