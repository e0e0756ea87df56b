"""Everything from data to GGUF, in the order of the README. Steps that are done are skipped."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.tiny_coder.dataset import encode_samples
from tools.tiny_coder.export import Vocabulary, export_gguf, load_model
from tools.tiny_coder.generate import write_samples
from tools.tiny_coder.mix import MIXES
from tools.tiny_coder.shipped import read_tokenizer
from tools.tiny_coder.tokenizer import load_tokenizer, train_tokenizer
from tools.tiny_coder.words import Split

_FOR_VOCABULARY = 14_000
_FOR_VALIDATION = 160
_VALIDATION = {
    "family": Split.FAMILY,
    "composition": Split.COMPOSITION,
    "paraphrase": Split.PARAPHRASE,
}


@dataclass(frozen=True)
class Builder:
    """One folder of work data."""

    folder: Path
    processes: int
    count: int
    """Samples of each mix; a run of the usual length needs no more."""
    start: Path | None = None
    """A GGUF file of ours to go on from, with its vocabulary and weights."""

    @property
    def tokenizer(self) -> Path:
        """Where the vocabulary lies."""
        return self.folder / "tokenizer.json"

    @property
    def checkpoint(self) -> Path:
        """Where training leaves the model."""
        return self.folder / "checkpoints" / "last.pt"

    def make_tokenizer(self) -> None:
        """Learn the vocabulary from samples of its own, or take that of the start."""
        if self.tokenizer.exists():
            return
        if self.start:
            self.folder.mkdir(parents=True, exist_ok=True)
            read_tokenizer(self.start).save(str(self.tokenizer))
            return
        shards = self._write("vocabulary", _FOR_VOCABULARY, Split.TRAIN, "vocabulary", processes=1)
        train_tokenizer(shards[0], self.tokenizer, _FOR_VOCABULARY)

    def make_dataset(self, name: str, count: int, split: Split, mix: str) -> Path:
        """Generate and encode one set of samples; the path of the encoded set."""
        output = self.folder / f"{name}.npz"
        if not output.exists():
            shards = self._write(name, count, split, mix, processes=self.processes)
            encode_samples(load_tokenizer(self.tokenizer), shards).save(output)
        return output

    def train(self, minutes: float) -> None:
        """Train in a process of its own, resuming from the last checkpoint."""
        bare, main, finish = (
            self.make_dataset(mix, self.count, Split.TRAIN, mix)
            for mix in ("bare", "main", "finish")
        )
        validation = [
            self.make_dataset(f"validation_{name}", _FOR_VALIDATION, split, "shipped")
            for name, split in _VALIDATION.items()
        ]
        command = [sys.executable, "-u", "-m", "tools.tiny_coder.train"]
        command += [str(self.checkpoint.parent)]
        command += ["--main", str(bare), str(main)]
        command += ["--finish", str(bare), str(finish)]
        command += ["--validation", *map(str, validation)]
        command += ["--minutes", str(minutes), "--workers", str(self.processes)]
        if self.start:
            command += ["--start", str(self.start)]
        subprocess.run(command, check=True)

    def export(self, output: Path) -> None:
        """Write the GGUF file."""
        export_gguf(load_model(self.checkpoint), Vocabulary.read(self.tokenizer), output)

    def _write(
        self, name: str, count: int, split: Split, mix: str, *, processes: int
    ) -> list[Path]:
        return write_samples(
            self.folder, name, count=count, split=split, mix=MIXES[mix], processes=processes
        )


def main() -> None:
    """``python -m tools.tiny_coder build``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/tiny_coder"))
    parser.add_argument("--output", type=Path, default=Path("agent/models/tiny-coder-q8_0.gguf"))
    parser.add_argument("--minutes", type=float, default=76)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--count", type=int, default=60_000, help="samples of each mix")
    parser.add_argument("--start", type=Path, help="a GGUF file of ours to go on from")
    chosen = parser.parse_args(sys.argv[2:] if sys.argv[1:2] == ["build"] else None)
    builder = Builder(chosen.folder, chosen.processes, chosen.count, chosen.start)
    builder.make_tokenizer()
    builder.train(chosen.minutes)
    builder.export(chosen.output)


if __name__ == "__main__":
    main()
