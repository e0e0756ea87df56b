"""Samples as token ids with a weight for each: 1 where the model should learn, 0 elsewhere."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from tools.tiny_coder.tokenizer import TURN_END, load_tokenizer, render_chat

LONGEST = 900
_WEIGHT_OF_ALSO_LEARNED = 0.5
_BATCH = 2000


@dataclass(frozen=True)
class Dataset:
    """All samples in one array; sample i lies between ``offsets[i]`` and ``offsets[i + 1]``."""

    ids: NDArray[np.uint16]
    weights: NDArray[np.float16]
    offsets: NDArray[np.int64]
    roles: list[str]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample."""
        return np.diff(self.offsets)

    def subset(self, samples: list[int]) -> Dataset:
        """Only these samples."""
        spans = [slice(self.offsets[n], self.offsets[n + 1]) for n in samples]
        offsets = np.concatenate([[0], np.cumsum(self.lengths[samples])]).astype(np.int64)
        return Dataset(
            np.concatenate([self.ids[span] for span in spans]),
            np.concatenate([self.weights[span] for span in spans]),
            offsets,
            [self.roles[n] for n in samples],
        )

    @staticmethod
    def concatenate(datasets: list[Dataset]) -> Dataset:
        """All samples of all datasets."""
        lengths = np.concatenate([dataset.lengths for dataset in datasets])
        return Dataset(
            np.concatenate([dataset.ids for dataset in datasets]),
            np.concatenate([dataset.weights for dataset in datasets]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            [role for dataset in datasets for role in dataset.roles],
        )

    def save(self, path: Path) -> None:
        """Write all arrays into one ``.npz`` file."""
        arrays: dict[str, Any] = {
            "ids": self.ids,
            "weights": self.weights,
            "offsets": self.offsets,
            "roles": np.array(self.roles),
        }
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        stored = np.load(path)
        roles = [str(role) for role in stored["roles"]]
        return cls(stored["ids"], stored["weights"], stored["offsets"], roles)


def encode_samples(tokenizer: Tokenizer, shards: list[Path]) -> Dataset:
    """Encode every sample that is not too long."""
    ids, weights, roles = [], [], []
    for shard in shards:
        with shard.open(encoding="utf-8") as lines:
            for batch in _batches(map(json.loads, lines)):
                prompts = [render_chat(sample["messages"]) for sample in batch]
                texts = [
                    f"{prompt}{sample['answer']}{TURN_END}"
                    for prompt, sample in zip(prompts, batch, strict=True)
                ]
                encodings = tokenizer.encode_batch(texts)
                for prompt, sample, encoding in zip(prompts, batch, encodings, strict=True):
                    if len(encoding.ids) <= LONGEST:
                        ids.append(np.array(encoding.ids, np.uint16))
                        weights.append(_weights(encoding, prompt, sample["also_learned"]))
                        roles.append(sample["role"])
    lengths = [len(sample) for sample in ids]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Dataset(np.concatenate(ids), np.concatenate(weights), offsets, roles)


def _batches(samples: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(samples, _BATCH)):
        yield batch


def _weights(encoding: Encoding, prompt: str, also_learned: str) -> NDArray[np.float16]:
    starts = np.array([start for start, _ in encoding.offsets])
    weights = (starts >= len(prompt)).astype(np.float16)
    added = "\n".join(f"+{line}" for line in also_learned.split("\n"))
    place = prompt.rfind(added) if also_learned else -1
    if place >= 0:
        inside = (starts > place) & (starts < place + len(added))
        weights[inside] = _WEIGHT_OF_ALSO_LEARNED
    return weights


def main() -> None:
    """``python -m tools.tiny_coder.dataset TOKENIZER OUTPUT SHARD...``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("shards", type=Path, nargs="+")
    chosen = parser.parse_args()
    dataset = encode_samples(load_tokenizer(chosen.tokenizer), chosen.shards)
    dataset.save(chosen.output)
    lengths = dataset.lengths
    print(f"{len(lengths)} samples, {lengths.sum()} tokens, mean {lengths.mean():.0f}")
    print("percentiles 10, 50, 90, 99:", np.percentile(lengths, [10, 50, 90, 99]).astype(int))
    print(f"learned tokens: {(dataset.weights > 0).sum()}")


if __name__ == "__main__":
    main()
