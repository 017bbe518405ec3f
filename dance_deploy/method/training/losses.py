"""The terms of the training losses that are not torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def distillation(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 2.0) -> torch.Tensor:
    """KL divergence from the softened answers of `teacher` [N, K] to those of `student` [N, K], mean over clips.

    Times temperature squared, so that its gradient is as large as the cross-entropy's. Source: Hinton et al.,
    "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).
    """
    log_student = F.log_softmax(student / temperature, 1)
    log_teacher = F.log_softmax(teacher / temperature, 1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def mac_penalty(share: torch.Tensor, budget: torch.Tensor, over: float, under: float) -> torch.Tensor:
    """How far the mean share of MACs lies from the budget, in logarithm: 0 where they are equal.

    share, budget: scalars > 0, mean share of the clips that ran at one budget, and that budget;
    over, under: weight where more, and where less was spent than asked. The mean counts, not each clip: easy clips
    pay for hard ones.
    """
    distance = torch.log(share / budget)
    return over * torch.relu(distance) + under * torch.relu(-distance)
