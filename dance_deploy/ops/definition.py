"""The meaning of the dance ops in plain numpy; everything else is tested against this.

One import for what gate.py, conv.py, expand.py and tolerance.py define. Source: docs/ops.md.
"""
from dance_deploy.ops.conv import conv3d, gated_conv3d, gated_conv3d_cl
from dance_deploy.ops.expand import SWISH_SLOPE, expand_depthwise_cl, expand_depthwise_reference
from dance_deploy.ops.gate import (
    GateMasks,
    activation_gate,
    activation_gate_cl,
    check_masks,
    gate_borderline,
    magnitudes,
)
from dance_deploy.ops.tolerance import Reference, check_output, error_bound, reference

__all__ = [
    "GateMasks", "Reference", "SWISH_SLOPE", "activation_gate", "activation_gate_cl", "check_masks", "check_output",
    "conv3d", "error_bound", "expand_depthwise_cl", "expand_depthwise_reference", "gate_borderline", "gated_conv3d",
    "gated_conv3d_cl", "magnitudes", "reference",
]
