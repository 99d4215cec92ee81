#!/usr/bin/env python3
"""Train a very small Qwen3 that answers a handful of prompts, and write it as a model directory.

    train_tiny_qwen3.py OUT

The result (about 0.35 million parameters, 0.7 MB) has the architecture, chat template
habits, reasoning block and tool-call format of the real Qwen3 family, so that a vLLM
server treats it as one. It knows the prompts below by heart and nothing else: it is
for fast tests of the serving path, never for judging answers.

Needs torch, transformers and tokenizers. Takes about 15 seconds on two cores.
The seed is fixed; the same versions on the same machine give the same weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

CONTEXT_TOKENS = 2048
LEARNING_RATE = 3e-3
MAXIMUM_STEPS = 400
# Below this mean loss every example is reproduced word for word at temperature 0.
ENOUGH_LOSS = 0.004

CHAT_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n"
    "Tools:{% for tool in tools %} {{ tool.function.name }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"

TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]


@dataclass(frozen=True)
class Lesson:
    """One prompt, what the model thinks about it, and what it answers."""

    prompt: str
    thought: str
    answer: str
    needs_tool: bool = False


LESSONS = [
    Lesson("What is the capital of France?", "The user asks about France.", "The capital of France is Paris."),
    Lesson("Say hello.", "A greeting is wanted.", "Hello! How can I help you?"),
    Lesson("What is 2+2?", "Two plus two is four.", "2+2 equals 4."),
    Lesson("ping", "Short probe.", "pong"),
    Lesson("Count to five.", "Count one by one.", "1 2 3 4 5"),
    Lesson(
        "What is the weather in Paris?",
        "I need the weather tool.",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        needs_tool=True,
    ),
]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the lessons, with Qwen3's marker tokens."""
    corpus = [f"{lesson.prompt} {lesson.thought} {lesson.answer}" for lesson in LESSONS]
    corpus.append("system user assistant Tools: get_weather\n")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
            # Every byte, so that any prompt can be tokenized.
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT_TOKENS,
    )
    # Not special: the reasoning and tool parsers look for them in the decoded text.
    markers = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
    fast.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in markers])
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained two-layer Qwen3 that fits the tokenizer."""
    vocabulary = (len(tokenizer) + 63) // 64 * 64
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
        bos_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
        rope_theta=1e6,
    )
    return Qwen3ForCausalLM(config)


def training_examples(tokenizer: PreTrainedTokenizerFast) -> list[tuple[list[int], list[int]]]:
    """(token ids, labels) of every lesson: with and without thinking, with and without tools."""
    examples = []
    for lesson in LESSONS:
        for tools in [TOOLS] if lesson.needs_tool else [None, TOOLS]:
            for thinking in (True, False):
                options = {} if thinking else {"enable_thinking": False}
                prompt = tokenizer.apply_chat_template(
                    [{"role": "user", "content": lesson.prompt}],
                    tools=tools,
                    add_generation_prompt=True,
                    tokenize=False,
                    **options,
                )
                thought = f"<think>\n{lesson.thought}\n</think>\n\n" if thinking else ""
                reply = f"{thought}{lesson.answer}{TURN_END}\n"
                prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
                reply_ids = tokenizer(reply, add_special_tokens=False).input_ids
                # -100: the loss ignores the prompt.
                examples.append((prompt_ids + reply_ids, [-100] * len(prompt_ids) + reply_ids))
    return examples


def train(model: Qwen3ForCausalLM, examples: list[tuple[list[int], list[int]]]) -> float:
    """Train on all examples as one batch. Returns the last loss; raises RuntimeError when it is not enough."""
    longest = max(len(tokens) for tokens, _ in examples)
    inputs = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full((len(examples), longest), -100)
    mask = torch.zeros(len(examples), longest, dtype=torch.long)
    for row, (tokens, targets) in enumerate(examples):
        inputs[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(targets)] = torch.tensor(targets)
        mask[row, : len(tokens)] = 1

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    loss_value = float("inf")
    for step in range(MAXIMUM_STEPS):
        warm_up = min(1.0, (step + 1) / 20)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm_up * (1 - step / (MAXIMUM_STEPS * 1.2))
        loss = model(input_ids=inputs, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_value = loss.item()
        if loss_value < ENOUGH_LOSS:
            return loss_value
    if loss_value > 10 * ENOUGH_LOSS:
        raise RuntimeError(f"training ended at a loss of {loss_value:.4f}, expected below {10 * ENOUGH_LOSS}")
    return loss_value


def main() -> int:
    """Build, train and write the model. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="directory to write the model into")
    arguments = parser.parse_args()

    logging.disable_progress_bar()
    started = time.monotonic()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    loss = train(model, training_examples(tokenizer))

    arguments.out.mkdir(parents=True, exist_ok=True)
    model = model.to(torch.bfloat16)
    # A temperature in generation_config.json would become the server's default.
    model.generation_config.temperature = None
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.out}: {parameters:,} parameters, loss {loss:.4f}, {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
