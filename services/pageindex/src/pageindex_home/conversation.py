"""A question that leans on what was said before it ("and in 2023?"), rewritten so that it stands alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from .llm import (
    Completion,
    LanguageModel,
    LanguageModelError,
    LanguageModelUnavailable,
    Message,
    estimate_tokens,
    room_for_text,
)
from .text import contains_word, content_terms, is_figure, normalise, tidy, words

#: The last messages, and at most so many tokens of each.
_MOST_MESSAGES = 6
_MESSAGE_TOKENS = 200
_LEAST_MESSAGE_TOKENS = 20
_LONGEST_QUESTION = 500  # characters
_REPLY_TOKENS = 220
_NAMES = {"user": "Question", "assistant": "Answer"}
_INSTRUCTION = (
    "Rewrite the last question so that it is understood without the conversation. Keep its words and figures, add what "
    "it leaves out, and answer nothing. Where it is understood already, repeat it."
)


async def standalone(
    llm: LanguageModel,
    question: str,
    earlier: Sequence[Message],
    *,
    patience: float,
    count: Callable[[Completion], None],
    told: dict[str, Any],
) -> str:
    """*question* with what it leaves out, from the messages *earlier* in its conversation; one request to the model.

    It is the question as it was asked where the model's version cannot be believed, or its reply is of no use; *told*
    says why. *count* hears of the completion.

    Raises:
        LanguageModelUnavailable: the model server stayed away.
    """
    earlier = earlier[-_MOST_MESSAGES:]
    told["question"] = question
    used = estimate_tokens(_INSTRUCTION + question) + 20 + 10 * len(earlier)
    share = room_for_text(await llm.context_tokens(), _REPLY_TOKENS, used) // len(earlier)
    if len(question) > _LONGEST_QUESTION or share < _LEAST_MESSAGE_TOKENS:
        told["as_asked"] = "the question is too long to be rewritten"
        return question
    said = [f"{_NAMES[message['role']]}: {_shortened(message['content'], share)}" for message in earlier]
    conversation = "\n".join(said)
    schema = {
        "type": "object",
        "properties": {"question": {"type": "string", "maxLength": _LONGEST_QUESTION}},
        "required": ["question"],
        "additionalProperties": False,
    }
    content = f"Conversation:\n{conversation}\n\n{_INSTRUCTION}\nLast question: {question}"
    try:
        reply, completion = await llm.structured(
            [{"role": "user", "content": content}], schema=schema, max_tokens=_REPLY_TOKENS, patience=patience
        )
    except LanguageModelUnavailable:
        raise
    except LanguageModelError as error:
        told["as_asked"] = f"the model's version could not be used ({error})"
        return question
    count(completion)
    rewritten = tidy(str(reply.get("question") or ""))
    if not believable_question(rewritten, question, conversation):
        told.update(as_asked="the model's version could not be believed", refused=rewritten[:200])
        return question
    told["question"] = rewritten
    return rewritten


def believable_question(rewritten: str, question: str, conversation: str) -> bool:
    """Whether *rewritten* asks what *question* does and adds nothing that the *conversation* does not have.

    Figures and capitalised words must occur there, and most other words; the question's own figures must be kept.
    """
    known = f"{conversation}\n{question}"
    plain, present = normalise(known), set(content_terms(known))
    told = set(content_terms(rewritten))
    if not told or len(rewritten) > _LONGEST_QUESTION:
        return False
    if any(is_figure(word) and not contains_word(plain, word) for word in words(rewritten)):
        return False
    kept = normalise(rewritten)
    if any(is_figure(word) and not contains_word(kept, word) for word in words(question)):
        return False
    # The first word is one of them: nothing tells a name from another word there.
    capitalised = [word for word in re.findall(r"[^\W_]+", rewritten) if word != word.lower()]
    if any(not set(content_terms(word)) <= present for word in capitalised):
        return False
    return len(told & present) >= len(told) * 0.5


def _shortened(text: str, tokens: int) -> str:
    """The beginning of *text*, in at most so many estimated tokens, on one line."""
    text = tidy(text[: _MESSAGE_TOKENS * 10])
    tokens = min(tokens, _MESSAGE_TOKENS)
    while text and estimate_tokens(text) > tokens:
        text = text[: int(len(text) * min(0.9, tokens / estimate_tokens(text)))]
    return text
