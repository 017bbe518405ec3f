"""Reference backbones by name, and loading published weights into them.

    model = build("r3d18", num_classes=10, seed=0)
    report = load_weights(model, "r3d_18-b3b3357e.pth")
    clip_spec = ARCHITECTURES["r3d18"].clip
"""
import torch
from torch import nn

from dance_deploy.errors import InputError
from dance_deploy.models import c3d, small, video_resnet, x3d
from dance_deploy.models.architecture import Architecture
from dance_deploy.models.own import is_own, own_architecture
from dance_deploy.models.weights import LoadReport, load_weights, read_tensors

__all__ = ["ARCHITECTURES", "Architecture", "LoadReport", "build", "get", "is_own", "load_weights",
           "read_tensors"]

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        small.SMALL, c3d.C3D, video_resnet.R3D18, video_resnet.MC3_18, video_resnet.R2PLUS1D18, x3d.X3D_S)
}


def get(name: str) -> Architecture:
    """The architecture of that name, or the user's own (models.own), whose code is run then.

    Raises InputError, listing the names, where there is none.
    """
    if is_own(name):
        return own_architecture(name)
    if name not in ARCHITECTURES:
        raise InputError(f"architecture '{name}' is unknown; choose one of: {', '.join(ARCHITECTURES)}, or "
                         "give a network of your own as FILE.py:FUNCTION")
    return ARCHITECTURES[name]


def build(name: str, num_classes: int, seed: int | None = None) -> nn.Module:
    """A freshly initialised backbone, in training mode, on the CPU.

    name:        a key of ARCHITECTURES, or FILE.py:FUNCTION
    num_classes: size of the logits, at least 1
    seed:        the same seed gives the same weights and leaves torch's global generators as they were; None draws
                 from torch's global CPU generator, as any torch module does
    Raises InputError for an unknown name or a class count below 1.
    """
    architecture = get(name)
    if num_classes < 1:
        raise InputError(f"architecture '{name}': num_classes is {num_classes}, expected 1 or more")
    if seed is None:
        return architecture.build(num_classes)
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed: that would reseed the generators of every accelerator too
        torch.random.default_generator.manual_seed(seed)
        return architecture.build(num_classes)
