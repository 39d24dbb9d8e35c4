"""Turn an instruction into the token ids the model was trained on (spec §3.1)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError, InstructionError

OPENVLA_TEMPLATE = "In: What action should the robot take to {instruction}?\nOut:"
ACTION_PREFIX_ID = 29871
CACHE_SIZE = 32


class PromptEncoder:
    """Encode instructions as prompts, remembering the last few.

    Args:
        encode: text -> token ids, BOS first (the tokenizer of the checkpoint).
        template: prompt text with one `{instruction}`.
        max_tokens: longest prompt the model or engine accepts, BOS included, action prefix excluded.
        action_prefix_id: the lone "▁" that precedes the action slots. The model appends it itself, so
            a trailing one is removed here.

    Raises:
        ConfigError: the template has not exactly one `{instruction}`, or `max_tokens` is below 1.
    """

    def __init__(
        self,
        *,
        encode: Callable[[str], Sequence[int]],
        template: str = OPENVLA_TEMPLATE,
        max_tokens: int,
        action_prefix_id: int = ACTION_PREFIX_ID,
    ) -> None:
        if template.count("{instruction}") != 1:
            raise ConfigError(
                "prompt template",
                got=repr(template),
                expected="exactly one {instruction}",
                fix="correct prompt_template in the policy section of manifest.json or lightvla.json",
            )
        if max_tokens < 1:
            raise ConfigError(
                "max_tokens of the prompt",
                got=max_tokens,
                expected="at least 1",
                fix="correct max_prompt_tokens in the policy section of manifest.json or lightvla.json",
            )
        self.max_tokens = max_tokens
        self._encode = encode
        self._template = template
        self._action_prefix_id = action_prefix_id
        self._cache: OrderedDict[str, NDArray[np.int64]] = OrderedDict()

    def encode(self, instruction: str) -> NDArray[np.int64]:
        """Encode one instruction; case and runs of white space do not matter.

        Args:
            instruction: what the user asked for, e.g. "turn on the stove".

        Returns:
            int64 [n], read-only; BOS first, without the trailing action prefix, n <= max_tokens.

        Raises:
            InstructionError: it is no text, empty, holds control characters or is too long.
        """
        normalized = _normalize(instruction)
        input_ids = self._cache.pop(normalized, None)
        if input_ids is None:
            input_ids = self._tokenize(normalized)
        self._cache[normalized] = input_ids
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return input_ids

    def _tokenize(self, instruction: str) -> NDArray[np.int64]:
        # Not str.format: an instruction may contain braces.
        input_ids = list(self._encode(self._template.replace("{instruction}", instruction)))
        if input_ids and input_ids[-1] == self._action_prefix_id:
            input_ids.pop()
        if len(input_ids) > self.max_tokens:
            raise InstructionError(
                f"instruction {_shortened(instruction)}",
                got=f"a prompt of {len(input_ids)} tokens",
                expected=f"at most {self.max_tokens}",
                fix="say it in fewer words, or export the bundle with a longer prompt",
            )
        result = np.array(input_ids, dtype=np.int64)
        result.flags.writeable = False
        return result


def _normalize(instruction: str) -> str:
    if not isinstance(instruction, str):
        raise InstructionError(
            "instruction",
            got=type(instruction).__name__,
            expected="text",
            fix='send a string such as "pick up the cup"',
        )
    control = sorted({c for c in instruction if not (c.isprintable() or c.isspace())})
    if control:
        raise InstructionError(
            f"instruction {_shortened(instruction)}",
            got=f"control characters {control[:5]}",
            expected="printable text",
            fix="remove them",
        )
    normalized = " ".join(instruction.lower().split())
    if not normalized:
        raise InstructionError(
            "instruction",
            got="empty text",
            expected="what the robot should do",
            fix='send e.g. "pick up the cup"',
        )
    return normalized


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
