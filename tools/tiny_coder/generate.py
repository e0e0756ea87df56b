"""Write random samples to a file, one JSON object per line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

from tools.tiny_coder.mix import MIXES, Mix
from tools.tiny_coder.samples import Sample, draw_sample
from tools.tiny_coder.words import Split


def record(sample: Sample) -> str:
    """The line of one sample."""
    return json.dumps(
        {
            "role": sample.role,
            "messages": sample.prompt.messages,
            "answer": sample.answer,
            "also_learned": sample.also_learned,
        }
    )


def draw_samples(seed: str, count: int, split: Split, mix: Mix) -> Iterator[Sample]:
    """The same samples for the same seed."""
    random = Random(seed)
    for _ in range(count):
        yield draw_sample(random, split, mix)


def write_shard(path: Path, seed: str, count: int, split: Split, mix: Mix) -> int:
    """Write `count` samples; returns how many."""
    with path.open("w", encoding="utf-8") as output:
        for sample in draw_samples(seed, count, split, mix):
            output.write(record(sample) + "\n")
    return count


def write_samples(
    folder: Path, name: str, *, count: int, split: Split, mix: Mix, processes: int
) -> list[Path]:
    """Write the samples with several processes, one shard each."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [folder / f"{name}-{number}.jsonl" for number in range(processes)]
    each = count // processes
    with ProcessPoolExecutor(processes) as pool:
        jobs = [pool.submit(write_shard, shard, shard.stem, each, split, mix) for shard in shards]
        for job in jobs:
            job.result()
    return shards


def main() -> None:
    """``python -m tools.tiny_coder.generate FOLDER NAME --count N --mix MIX``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--count", type=int, default=150_000)
    parser.add_argument("--split", type=Split, default=Split.TRAIN)
    parser.add_argument("--mix", choices=MIXES, default="main")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    shards = write_samples(
        chosen.folder,
        chosen.name,
        count=chosen.count,
        split=chosen.split,
        mix=MIXES[chosen.mix],
        processes=chosen.processes,
    )
    print(f"{chosen.count} samples in {', '.join(map(str, shards))}")


if __name__ == "__main__":
    main()
