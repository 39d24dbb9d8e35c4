"""Instruction to token ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lightvla_ros.core.errors import ConfigError, InstructionError
from lightvla_ros.core.prompt import ACTION_PREFIX_ID, CACHE_SIZE, PromptEncoder

STOVE_PROMPT = "In: What action should the robot take to turn on the stove?\nOut:"
STOVE_IDS = [
    1,
    512,
    29901,
    1724,
    3158,
    881,
    278,
    19964,
    2125,
    304,
    2507,
    373,
    278,
    380,
    994,
    29973,
    13,
    3744,
    29901,
]


class CountingTokenizer:
    """Known ids for one prompt, else BOS and one id per character; remembers the texts it was asked for."""

    def __init__(self, table: dict[str, list[int]] | None = None) -> None:
        self.table = table or {}
        self.texts: list[str] = []

    def __call__(self, text: str) -> list[int]:
        self.texts.append(text)
        return self.table.get(text, [1, *(ord(c) for c in text)])


def make_encoder(tokenizer: CountingTokenizer, max_tokens: int = 200) -> PromptEncoder:
    return PromptEncoder(encode=tokenizer, max_tokens=max_tokens)


def test_the_published_example_gives_the_published_ids() -> None:
    input_ids = make_encoder(CountingTokenizer({STOVE_PROMPT: STOVE_IDS})).encode("turn on the stove")
    assert input_ids.dtype == np.int64
    assert input_ids.tolist() == STOVE_IDS


def test_case_and_white_space_do_not_matter() -> None:
    tokenizer = CountingTokenizer({STOVE_PROMPT: STOVE_IDS})
    assert make_encoder(tokenizer).encode("  Turn ON\tthe   stove\n").tolist() == STOVE_IDS
    assert tokenizer.texts == [STOVE_PROMPT]


def test_a_trailing_action_prefix_is_left_to_the_model() -> None:
    tokenizer = CountingTokenizer({STOVE_PROMPT: [*STOVE_IDS, ACTION_PREFIX_ID]})
    assert (
        make_encoder(tokenizer, max_tokens=len(STOVE_IDS)).encode("turn on the stove").tolist() == STOVE_IDS
    )


def test_an_instruction_is_tokenised_once_until_others_push_it_out() -> None:
    tokenizer = CountingTokenizer()
    encoder = make_encoder(tokenizer)
    encoder.encode("a")
    encoder.encode("a")
    assert len(tokenizer.texts) == 1
    for i in range(CACHE_SIZE):
        encoder.encode(f"task {i}")
    encoder.encode("a")
    assert len(tokenizer.texts) == CACHE_SIZE + 2


def test_the_ids_cannot_be_edited_by_the_caller() -> None:
    with pytest.raises(ValueError, match="read-only"):
        make_encoder(CountingTokenizer()).encode("a")[0] = 5


def test_braces_are_text() -> None:
    tokenizer = CountingTokenizer()
    make_encoder(tokenizer).encode("pick {instruction} {0}")
    assert tokenizer.texts == ["In: What action should the robot take to pick {instruction} {0}?\nOut:"]


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("", "empty text"),
        ("  \n", "empty text"),
        (None, "got NoneType"),
        (b"pick", "got bytes"),
        ("pick\x00up", "control characters"),
        ("pick\x1b[0m", "control characters"),
    ],
)
def test_what_is_no_instruction_is_refused(instruction: object, message: str) -> None:
    encode: Callable[[Any], object] = make_encoder(CountingTokenizer()).encode
    with pytest.raises(InstructionError, match=message):
        encode(instruction)


def test_an_over_long_instruction_names_both_lengths_and_a_way_out() -> None:
    encoder = PromptEncoder(encode=CountingTokenizer(), template="{instruction}", max_tokens=5)
    assert encoder.encode("lift").size == 5
    with pytest.raises(InstructionError, match=r"6 tokens.*at most 5.*fewer words"):
        encoder.encode("lift!")


@pytest.mark.parametrize(
    ("template", "max_tokens"), [("no slot", 5), ("{instruction} {instruction}", 5), ("{instruction}", 0)]
)
def test_a_bad_template_or_length_is_refused(template: str, max_tokens: int) -> None:
    with pytest.raises(ConfigError):
        PromptEncoder(encode=CountingTokenizer(), template=template, max_tokens=max_tokens)
