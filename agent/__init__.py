"""Turbo Local Coder: a team of agents that codes with a small local model."""

__version__ = "0.1.0"
