"""The documents as a model of OpenAI's chat API, so that its clients (Open WebUI, SDKs) can ask them.

Model ``pageindex`` reads all documents, ``pageindex/DOCUMENT_ID`` one. The last message of the user is the question;
what user and assistant said before it tells what it means. System messages are not read: how answers are made and
checked is not for a client to say.
"""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from . import events
from .access import note
from .citations import place_of
from .llm import Message
from .problem_responses import openai_error
from .problems import Problem
from .schemas import ChatIn, ChatMessage
from .service import service_of
from .store import READY

router = APIRouter()

MODEL = "pageindex"


@router.get("/v1/models")
def models(request: Request) -> dict[str, Any]:
    """The documents as models: all together, and each that is ready."""
    service = service_of(request)
    created = int(time.time())
    entry = {"object": "model", "created": created, "owned_by": "pageindex-home"}
    listed = [{"id": MODEL, "name": "All documents", **entry}]
    for document in service.store.find(READY):
        listed.append(
            {**entry, "id": f"{MODEL}/{document.id}", "name": document.name, "created": int(document.created_at)}
        )
    return {"object": "list", "data": listed}


@router.post(
    "/v1/chat/completions",
    response_model=None,
    responses={
        200: {"content": {"application/json": {}, "text/event-stream": {}}},
    },
)
async def chat(request: Request, body: ChatIn) -> Response:
    """Answer the user's last message from documents; the sources stand below the answer, and in ``citations``.

    A question that follows others is first made to stand alone; ``trace`` has it in step ``understand``.
    """
    service = service_of(request)
    question, earlier = _conversation(body)
    if not question.strip():
        raise Problem(422, "empty-question", "The question is empty", "The last message of role user has no text.")
    chosen = await service.chosen(_documents(body.model))
    note(request, question=question, documents=[document.id for document in chosen])
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
    if not body.stream:
        answer = await service.answer(question, chosen, earlier=earlier)
        message = {"role": "assistant", "content": _text(answer), "citations": answer["citations"]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        more = {"usage": _usage(answer), "trace": answer["trace"]}
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], **more})

    async def work(emit: events.Emit) -> None:
        def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            emit("", {**head, "object": "chat.completion.chunk", "choices": [choice], **more})

        chunk({"role": "assistant", "content": ""})
        try:
            answer = await service.answer(question, chosen, earlier=earlier)
        except Problem as problem:
            emit("", openai_error(problem))
            return
        for piece in re.findall(r"\S*\s*", _text(answer)):
            if piece:
                chunk({"content": piece})
        chunk({}, "stop", usage=_usage(answer), citations=answer["citations"], trace=answer["trace"])
        emit("", "[DONE]")

    return events.response(work)


def _documents(model: str) -> list[str] | None:
    """The documents that a model's name means; None for all. Raises Problem."""
    if model == MODEL:
        return None
    name, _, identifier = model.partition("/")
    if name != MODEL or not identifier:
        raise Problem(
            404,
            "no-such-model",
            "No such model",
            f"{model!r} is not served; expected {MODEL}, or one of GET /v1/models.",
        )
    return [identifier]


def _conversation(body: ChatIn) -> tuple[str, list[Message]]:
    """The text of the user's last message, and what user and assistant said before it."""
    said = [(message.role, _words(message)) for message in body.messages if message.role in ("user", "assistant")]
    while said and said[-1][0] != "user":
        said.pop()
    if not said:
        return "", []
    earlier: list[Message] = [{"role": role, "content": text} for role, text in said[:-1] if text.strip()]
    return said[-1][1], earlier


def _words(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = [part.get("text") for part in message.content or [] if part.get("type") == "text"]
    return "\n".join(part for part in parts if isinstance(part, str))


def _text(answer: dict[str, Any]) -> str:
    """The answer with its sources below, for clients that show nothing but text."""
    lines = [answer["answer"]]
    if answer["citations"]:
        lines += ["", "Sources:"]
    for citation in answer["citations"]:
        mark = "" if citation["verified"] else " (not verified)"
        lines.append(f"- {citation['document_name']}, {place_of(citation)}: “{citation['quote']}”{mark}")
    return "\n".join(lines)


def _usage(answer: dict[str, Any]) -> dict[str, int]:
    prompt, completion = answer["trace"]["prompt_tokens"], answer["trace"]["completion_tokens"]
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
