"""Muon for the matrices of the blocks, AdamW for the embedding and the norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tools.tiny_coder.model import TinyCoder

_MUON_RATE, _MUON_MOMENTUM, _MUON_DECAY = 0.02, 0.95, 0.02
_ADAM_RATE = 4e-3
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalize(gradient: Tensor) -> Tensor:
    """The nearest matrix whose singular values are about one, by Newton-Schulz iteration."""
    a, b, c = _NEWTON_SCHULZ
    matrix: Tensor = gradient.bfloat16()
    tall = matrix.shape[0] > matrix.shape[1]
    if tall:
        matrix = matrix.T
    matrix = matrix / (matrix.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = matrix @ matrix.T
        inner = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        matrix = torch.addmm(matrix, inner, matrix, beta=a)
    return (matrix.T if tall else matrix).float()


@dataclass
class _Matrix:
    """One parameter that Muon updates, in parts that are matrices of their own."""

    parameter: torch.nn.Parameter
    parts: list[int]
    momentum: Tensor


class Optimizer:
    """Both optimizers behind one step."""

    def __init__(self, model: TinyCoder) -> None:
        shape = model.shape
        split = {
            "query_key_value": [shape.query_width, shape.key_width, shape.key_width],
            "gate_up": [shape.feed_forward, shape.feed_forward],
        }
        self._matrices = [
            _Matrix(
                parameter,
                split.get(name.split(".")[-2], [parameter.shape[0]]),
                torch.zeros_like(parameter),
            )
            for name, parameter in model.blocks.named_parameters()
            if parameter.dim() == 2
        ]
        by_muon = {id(matrix.parameter) for matrix in self._matrices}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in by_muon]
        self._adam = torch.optim.AdamW(
            rest, lr=_ADAM_RATE, betas=(0.9, 0.97), eps=1e-10, weight_decay=0
        )

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Update every parameter at `scale` times the full rates, and clear the gradients."""
        for matrix in self._matrices:
            self._muon(matrix, _MUON_RATE * scale)
        for group in self._adam.param_groups:
            group["lr"] = _ADAM_RATE * scale
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        for matrix in self._matrices:
            matrix.parameter.grad = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        momenta = [matrix.momentum for matrix in self._matrices]
        return {"momenta": momenta, "adam": self._adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        for matrix, momentum in zip(self._matrices, state["momenta"], strict=True):
            matrix.momentum.copy_(momentum)
        self._adam.load_state_dict(state["adam"])

    def _muon(self, matrix: _Matrix, rate: float) -> None:
        parameter, gradient = matrix.parameter, matrix.parameter.grad
        assert gradient is not None
        matrix.momentum.lerp_(gradient, 1 - _MUON_MOMENTUM)
        gradient = gradient.lerp(matrix.momentum, _MUON_MOMENTUM)
        parameter.mul_(1 - rate * _MUON_DECAY)
        row = 0
        for rows in matrix.parts:
            update = orthogonalize(gradient[row : row + rows])
            shape_factor = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
            parameter[row : row + rows].add_(update, alpha=-rate * shape_factor)
            row += rows
