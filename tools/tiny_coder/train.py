"""Train the model for a given time, with checkpoints from which it can be resumed.

The rate is constant for a while, then falls along a cosine until the time is up. Time is
training time: a resumed run goes on where its checkpoint stood.

Each worker is a process with one thread, a batch of its own and the same weights; gradients are
averaged. On a busy machine that is twice as fast as one process with as many threads, which
would wait for each other at the end of every small kernel.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
import torch._dynamo
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional

from tools.tiny_coder.batches import Batch, all_batches, endless_batches
from tools.tiny_coder.dataset import Dataset
from tools.tiny_coder.model import Shape, TinyCoder
from tools.tiny_coder.optimizer import Optimizer
from tools.tiny_coder.shipped import read_model

_WARM_UP_STEPS = 60
_CONSTANT_SHARE = 0.35
_LOWEST_SCALE = 0.02
_REPORT_STEPS = 50
_CHECKPOINT_S = 300


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a training run is given."""

    main: list[Path]
    """Datasets of the first part."""
    finish: list[Path]
    """Datasets of the last part: more of the shipped prompts."""
    finish_share: float
    validation: list[Path]
    minutes: float
    rate: float
    """Factor on all learning rates."""
    workers: int
    folder: Path
    """Where checkpoints go."""
    start: Path | None = None
    """A GGUF file of ours whose weights are the first ones; a checkpoint goes before it."""


@dataclass
class Progress:
    """How far a run is; part of a checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Score:
    """How well answers of one validation set are predicted."""

    loss: float
    exact: float
    """Share of samples all of whose answer tokens are the most likely ones."""


class Trainer:
    """One worker: model, optimizer and progress, kept together in a checkpoint."""

    def __init__(self, plan: TrainingPlan, rank: int) -> None:
        self.plan = plan
        self.rank = rank
        self.model = read_model(plan.start) if plan.start else TinyCoder(Shape())
        self.optimizer = Optimizer(self.model)
        self.progress = Progress()
        self.checkpoint = plan.folder / "last.pt"
        if self.checkpoint.exists():
            self._restore()

    def run(self) -> None:
        """Train until the time is up."""
        for block in self.model.blocks:
            block.compile(dynamic=False)
        random = Random(f"{self.rank} {self.progress.step}")
        main = endless_batches(_load_all(self.plan.main), random)
        finish = endless_batches(_load_all(self.plan.finish), random)
        total = self.plan.minutes * 60
        started, before = time.monotonic(), self.progress.seconds
        next_checkpoint = before + _CHECKPOINT_S
        losses: list[float] = []
        parent = os.getppid()
        while self.progress.seconds < total:
            if os.getppid() != parent:  # a killed run must not go on and overwrite checkpoints
                return
            share = self.progress.seconds / total
            batch = next(main if share < 1 - self.plan.finish_share else finish)
            losses.append(self._learn(batch, self._scale(share)))
            self.progress.seconds = _from_first_worker(before + time.monotonic() - started)
            if self.progress.step % _REPORT_STEPS == 0 and self.rank == 0:
                self._report(sum(losses) / len(losses))
                losses = []
            if self.progress.seconds > next_checkpoint:
                next_checkpoint = self.progress.seconds + _CHECKPOINT_S
                self._checkpoint()
        self._checkpoint()

    def _checkpoint(self) -> None:
        if self.rank == 0:
            self.save()
            self._report_validation()

    def save(self) -> None:
        """Write the checkpoint in one step, so that a reader never sees half of it."""
        temporary = self.checkpoint.with_suffix(".tmp")
        stored = {
            "shape": asdict(self.model.shape),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state(),
            "progress": asdict(self.progress),
        }
        torch.save(stored, temporary)
        temporary.replace(self.checkpoint)

    def _restore(self) -> None:
        stored = torch.load(self.checkpoint)
        self.model.load_state_dict(stored["model"])
        self.optimizer.restore(stored["optimizer"])
        self.progress = Progress(**stored["progress"])

    def _learn(self, batch: Batch, scale: float) -> float:
        losses, weights, _ = answer_losses(self.model, batch)
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.model)
        self.optimizer.step(scale)
        self.progress.step += 1
        self.progress.tokens += batch.tokens * self.plan.workers
        return loss.item()

    def _scale(self, share: float) -> float:
        warm = self.plan.rate * min(1.0, (self.progress.step + 1) / _WARM_UP_STEPS)
        if share < _CONSTANT_SHARE:
            return warm
        falling = (share - _CONSTANT_SHARE) / (1 - _CONSTANT_SHARE)
        return warm * max(_LOWEST_SCALE, 0.5 * (1 + math.cos(math.pi * falling)))

    def _report(self, loss: float) -> None:
        progress = self.progress
        print(
            f"step {progress.step} {progress.seconds / 60:.1f} min loss {loss:.4f}"
            f" {progress.tokens / 1e6:.2f} Mtok {progress.tokens / progress.seconds:.0f} tok/s",
            flush=True,
        )

    def _report_validation(self) -> None:
        for path in self.plan.validation:
            for role, score in validate(self.model, Dataset.load(path)).items():
                print(
                    f"  {path.stem} {role}: loss {score.loss:.4f} exact {score.exact:.0%}",
                    flush=True,
                )


def average_gradients(model: TinyCoder) -> None:
    """Give every worker the mean of all workers' gradients."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(together)
    together /= distributed.get_world_size()
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, mean in zip(gradients, torch.split(together, sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _from_first_worker(value: float) -> float:
    shared = torch.tensor([value], dtype=torch.float64)
    distributed.broadcast(shared, src=0)
    return float(shared.item())


def answer_losses(model: TinyCoder, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and weight of every target that counts, and whether it was the most likely token."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.hidden(batch.ids[:, :-1], torch.bfloat16)
        weights = batch.weights[:, 1:].reshape(-1)
        counted = weights.nonzero().squeeze(1)
        states = hidden.reshape(-1, model.shape.width)[counted]
        logits = functional.linear(states, model.embedding.weight).float()
    targets = batch.ids[:, 1:].reshape(-1)[counted]
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return losses, weights[counted], logits.argmax(-1) == targets


def validate(model: TinyCoder, dataset: Dataset) -> dict[str, Score]:
    """The score of each role, and of all together under ``all``."""
    found: dict[str, list[Score]] = {"all": []}
    with torch.inference_mode():
        for batch, samples in all_batches(dataset):
            for sample, score in zip(samples, _scores(model, batch), strict=False):
                found.setdefault(dataset.roles[sample], []).append(score)
                found["all"].append(score)
    return {
        role: Score(
            sum(score.loss for score in scores) / len(scores),
            sum(score.exact for score in scores) / len(scores),
        )
        for role, scores in found.items()
    }


def _scores(model: TinyCoder, batch: Batch) -> list[Score]:
    """The score of each row that holds a sample."""
    losses, weights, right = answer_losses(model, batch)
    rows = (batch.weights[:, 1:] > 0).nonzero()[:, 0]
    scores = []
    for row in torch.unique(rows):
        own = (rows == row) & (weights == 1)
        scores.append(Score(losses[own].mean().item(), float(right[own].all())))
    return scores


def _load_all(paths: list[Path]) -> Dataset:
    return Dataset.concatenate([Dataset.load(path) for path in paths])


def main() -> None:
    """``python -m tools.tiny_coder.train FOLDER --main A.npz --finish B.npz --minutes M``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where checkpoints go; resumed from there")
    parser.add_argument("--main", type=Path, nargs="+", required=True)
    parser.add_argument("--finish", type=Path, nargs="+", required=True)
    parser.add_argument("--finish-share", type=float, default=0.35)
    parser.add_argument("--validation", type=Path, nargs="*", default=[])
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on all learning rates")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--start", type=Path, help="a GGUF file to go on from")
    plan = TrainingPlan(**vars(parser.parse_args()))
    plan.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        spawn(_work, (plan, Path(folder) / "meeting"), plan.workers)  # type: ignore[no-untyped-call]


def _work(rank: int, plan: TrainingPlan, meeting: Path) -> None:
    os.setsid()  # Linux shares processor time between sessions: each worker is to get a share
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch._dynamo.config.recompile_limit = 64
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=plan.workers
    )
    try:
        Trainer(plan, rank).run()
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
