"""A synthetic vocabulary of exactly the size that a real model has.

A byte-level BPE is learnt from the library reference and some modules of the Python that runs this
(so another Python version gives a slightly different one), and unused entries fill it up.
"""

from __future__ import annotations

import heapq
import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import gguf
from gguf import TokenType

_MERGES = 8000
"""Enough for ordinary text; a real vocabulary also holds what hardly ever occurs."""
_LEARNT_FROM = (
    "argparse",
    "difflib",
    "doctest",
    "inspect",
    "optparse",
    "pydoc",
    "tarfile",
    "typing",
)
_PIECES = re.compile(
    r"(?i:'(?:[sdmt]|ll|ve|re))|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What the pre-tokenizer "qwen2" of llama.cpp does to ASCII text."""
_WORD = re.compile("\u0120[A-Za-z]+")
"""The blank of byte-level BPE, then letters: such tokens tokenize to themselves again."""
_END_OF_TEXT, _TURN_START, _TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL = (_END_OF_TEXT, _TURN_START, _TURN_END)
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class Vocabulary:
    """Bytes, merges, special tokens, unused ones: `size` tokens in all.

    `words` are the ids of English and Python words with a blank before each.
    """

    def __init__(self, size: int) -> None:
        symbols = _byte_symbols()
        merges = _learn_merges(min(_MERGES, size - len(symbols) - len(_SPECIAL)))
        used = list(dict.fromkeys([*symbols, *(left + right for left, right in merges)]))
        unused = size - len(used) - len(_SPECIAL)
        self._tokens = [*used, *_SPECIAL, *(f"[PAD{x}]" for x in range(unused))]
        self._types = [TokenType.NORMAL] * len(used) + [TokenType.CONTROL] * len(_SPECIAL)
        self._types += [TokenType.UNUSED] * unused
        self._merges = [f"{left} {right}" for left, right in merges]
        self.words = [x for x, token in enumerate(used) if _WORD.fullmatch(token)]

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Add tokenizer and chat template to the file."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(self._tokens)
        writer.add_token_types(self._types)
        writer.add_token_merges(self._merges)
        writer.add_bos_token_id(self._tokens.index(_END_OF_TEXT))
        writer.add_eos_token_id(self._tokens.index(_TURN_END))
        writer.add_pad_token_id(self._tokens.index(_END_OF_TEXT))
        writer.add_add_bos_token(False)
        writer.add_chat_template(_CHAT_TEMPLATE)


def _byte_symbols() -> list[str]:
    """The printable character of each byte, by the scheme of GPT-2."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    beyond = iter(range(0x100, 0x200))
    return [chr(x if x in printable else next(beyond)) for x in range(0x100)]


def _corpus() -> Iterable[str]:
    library = Path(inspect.__file__).parent
    yield from topics.values()
    for module in _LEARNT_FROM:
        yield (library / f"{module}.py").read_text(encoding="utf-8")


@cache
def _learn_merges(limit: int) -> tuple[tuple[str, str], ...]:
    """The most frequent pair of neighbours becomes one symbol, again and again."""
    symbols = _byte_symbols()
    pieces = Counter(x for text in _corpus() for x in _PIECES.findall(text))
    words = [[symbols[byte] for byte in piece.encode()] for piece in pieces]
    weights = list(pieces.values())
    counts: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += weights[index]
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[tuple[str, str]] = []
    while heap and len(merges) < limit:
        negative, best = heapq.heappop(heap)
        if negative != -counts[best]:  # each change of a count pushed a new entry
            continue
        merges.append(best)
        touched: set[tuple[str, str]] = set()
        for index in where.pop(best):
            before = list(pairwise(words[index]))
            words[index] = _merge(words[index], best)
            after = list(pairwise(words[index]))
            for pair in before:
                counts[pair] -= weights[index]
            for pair in after:
                counts[pair] += weights[index]
                where[pair].add(index)
            touched.update(before, after)
        for pair in touched:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
    return tuple(merges)


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    position = 0
    while position < len(word):
        length = 2 if tuple(word[position : position + 2]) == pair else 1
        merged.append("".join(word[position : position + length]))
        position += length
    return merged
