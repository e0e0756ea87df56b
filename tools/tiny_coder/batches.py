"""Batches of samples of about equal length, so that little is padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from tools.tiny_coder.dataset import LONGEST, Dataset

BUCKETS = [128, 160, 224, 272, 320, 384, 480, 608, LONGEST]
TOKENS_PER_STEP = 3584
"""Per worker. Muon moves equally far whatever the batch: more steps are worth more than larger."""
_SHUFFLED = 200


@dataclass(frozen=True)
class Batch:
    """Token ids with the weight of each as a target; one more column than the model reads."""

    ids: Tensor
    weights: Tensor
    tokens: int
    """Without padding."""


def samples_per_batch(bucket: int) -> int:
    """How many samples of that length make one step; fixed, so that compiled code fits."""
    return -(-(TOKENS_PER_STEP - bucket // 2) // bucket)


def make_batch(dataset: Dataset, samples: list[int], bucket: int) -> Batch:
    """The samples padded to the bucket; missing samples are rows without weight."""
    ids = np.zeros((samples_per_batch(bucket), bucket + 1), np.int64)
    weights = np.zeros(ids.shape, np.float32)
    tokens = 0
    for row, sample in enumerate(samples):
        start, end = dataset.offsets[sample], dataset.offsets[sample + 1]
        ids[row, : end - start] = dataset.ids[start:end]
        weights[row, : end - start] = dataset.weights[start:end]
        tokens += int(end - start)
    return Batch(torch.from_numpy(ids), torch.from_numpy(weights), tokens)


def endless_batches(dataset: Dataset, random: Random) -> Iterator[Batch]:
    """Epoch after epoch, lengths mixed."""
    while True:
        yield from _shuffled_epoch(dataset, random)


def all_batches(dataset: Dataset) -> Iterator[tuple[Batch, list[int]]]:
    """Every sample once with its number, the last batches incomplete."""
    waiting: dict[int, list[int]] = {bucket: [] for bucket in BUCKETS}
    for sample, length in enumerate(dataset.lengths):
        waiting[_bucket(int(length))].append(sample)
    for bucket, samples in waiting.items():
        size = samples_per_batch(bucket)
        for start in range(0, len(samples), size):
            chosen = samples[start : start + size]
            yield make_batch(dataset, chosen, bucket), chosen


def _shuffled_epoch(dataset: Dataset, random: Random) -> Iterator[Batch]:
    order = list(range(len(dataset.lengths)))
    random.shuffle(order)
    lengths = dataset.lengths
    waiting: dict[int, list[int]] = {bucket: [] for bucket in BUCKETS}
    ready: list[tuple[int, list[int]]] = []
    for sample in order:
        bucket = _bucket(int(lengths[sample]))
        waiting[bucket].append(sample)
        if len(waiting[bucket]) == samples_per_batch(bucket):
            ready.append((bucket, waiting[bucket]))
            waiting[bucket] = []
        if len(ready) == _SHUFFLED:
            random.shuffle(ready)
            yield from (make_batch(dataset, samples, size) for size, samples in ready)
            ready = []
    random.shuffle(ready)
    yield from (make_batch(dataset, samples, size) for size, samples in ready)


def _bucket(length: int) -> int:
    return next(bucket for bucket in BUCKETS if length <= bucket + 1)
