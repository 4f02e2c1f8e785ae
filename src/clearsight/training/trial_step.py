"""A step of a defence on noise, which shows wrong options before any picture is read."""

from __future__ import annotations

import torch
from torch import nn

from clearsight.core import rng
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.training_step import TrainingStep
from clearsight.training.losses import defended_losses, weighted_entropy
from clearsight.training.objective import Objective
from clearsight.training.perturb import attacker, no_attack

SIDE = 16  # pixels of the noise


def try_defence(asked: Objective) -> None:
    """Run the defence and its attack once on four pictures, or texts, of noise.  Refused: what they refuse."""
    if asked.defence is None:
        return
    generator = torch.Generator().manual_seed(0)
    if asked.norm == "characters":
        letters = torch.randint(5, (4, SIDE), generator=generator)
        noise = nn.functional.one_hot(letters, 5).float().movedim(2, 1)
    else:
        noise = torch.rand(4, 3, SIDE, SIDE, generator=generator)
    with torch.random.fork_rng(devices=rng.gpus()):
        net = nn.Sequential(nn.Flatten(), nn.Linear(noise[0].numel(), 8), nn.ReLU(), nn.Linear(8, 4))
    channels = noise.shape[1]
    model = Classifier(
        net, Preprocess(tuple(noise.shape[2:]), (0.0,) * channels, (1.0,) * channels), ("a", "b", "c", "d")
    )
    attack = no_attack if asked.attack is None else attacker(model, asked.attack, asked.eps, asked.norm, 0)
    step = TrainingStep(model, weighted_entropy(torch.ones(4), 0.0), attack, asked.eps, asked.norm)
    defended_losses(asked.defence, step, noise, torch.eye(4))
