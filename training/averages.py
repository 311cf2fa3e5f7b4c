"""Averages of networks' weights: what a trainer keeps beside the network that it steps, and means of two that began alike."""
from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def blend(network: nn.Module, other: nn.Module, keep: float) -> None:
    """Bring a network's weights nearer to another's; `keep` is the share of its own that stays."""
    for mine, its in zip(network.state_dict().values(), other.state_dict().values()):
        mine.copy_(keep * mine + (1 - keep) * its if mine.is_floating_point() else its)
