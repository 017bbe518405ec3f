"""What the exporter's tests build their networks with."""

import torch
from torch import nn


def randomize_norms(model: nn.Module, seed: int = 0) -> None:
    """Give batch norms statistics that are not 0 and 1, so that folding them wrongly would show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2.0),
                                          (module.weight, -1.5, 1.5), (module.bias, -0.5, 0.5)):
                    tensor.uniform_(low, high, generator=generator)


def threshold(model, tau_logit: float):
    """Set all thresholds of a gated model to one constant."""
    with torch.no_grad():
        model.controller.output.bias.fill_(tau_logit)
    return model
