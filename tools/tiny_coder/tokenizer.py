"""The vocabulary, trained so that an unknown name is cut the same way wherever it stands.

A byte-pair encoding usually learns ``Ġword`` and ``word`` as unrelated tokens, and then a name
after a space looks different from the same name after a parenthesis: the model cannot copy it.
So the merges are learned with the leading space split off, and ``Ġ`` + frequent word is merged
last. Digits stand alone. llama.cpp calls this pre-tokenizer ``smollm``.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
_MERGED_FIRST = 1720
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [END_OF_TEXT, TURN_START, TURN_END]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_WORD_WITH_SPACE_APART = Regex(
    r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+| (?=\p{L})| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
Messages = list[dict[str, str]]


def render_chat(messages: Messages) -> str:
    """The messages as the chat template prints them, up to where the answer begins."""
    turns = [f"{TURN_START}{m['role']}\n{m['content']}{TURN_END}\n" for m in messages]
    return "".join(turns) + f"{TURN_START}assistant\n"


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of that file."""
    return Tokenizer.from_file(str(path))


def train_tokenizer(samples: Path, output: Path, limit: int = 14_000) -> Tokenizer:
    """Learn the vocabulary from samples and write it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(_WORD_WITH_SPACE_APART, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=_MERGED_FIRST,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=4,
    )
    tokenizer.train_from_iterator(_texts(samples, limit), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    _merge_spaces(learned, _words_after_space(samples, limit // 2))
    merges = [(left, right) for left, right in learned["merges"]]
    tokenizer = build_tokenizer(learned["vocab"], merges)
    tokenizer.save(str(output))
    return tokenizer


def build_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """The tokenizer with that vocabulary; the special tokens get the numbers after it."""
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    return tokenizer


def _merge_spaces(model: dict[str, Any], frequent: list[str]) -> None:
    """Append ``Ġ`` + word for the most frequent words until the vocabulary is full."""
    vocabulary = model["vocab"]
    room = VOCABULARY - len(SPECIAL) - len(vocabulary)
    known = [word for word in frequent if word in vocabulary and (len(word) > 1 or word in "xcav")]
    for word in known[:room]:
        vocabulary[f"Ġ{word}"] = len(vocabulary)
        model["merges"].append(["Ġ", word])


def _words_after_space(samples: Path, limit: int) -> list[str]:
    counted: Counter[str] = Counter()
    for text in _texts(samples, limit):
        counted.update(re.findall(r"(?<= )[A-Za-z]+", text))
    return [word for word, _ in counted.most_common()]


def _texts(samples: Path, limit: int) -> Iterator[str]:
    with samples.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number >= limit:
                return
            sample = json.loads(line)
            for message in sample["messages"]:
                yield f"{message['role']}\n{message['content']}\n"
            yield f"assistant\n{sample['answer']}"


def main() -> None:
    """``python -m tools.tiny_coder.tokenizer SAMPLES OUTPUT``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path)
    parser.add_argument("output", type=Path)
    chosen = parser.parse_args()
    tokenizer = train_tokenizer(chosen.samples, chosen.output)
    print(f"{tokenizer.get_vocab_size()} tokens in {chosen.output}")


if __name__ == "__main__":
    main()
