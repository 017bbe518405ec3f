"""Names, attributes and defaults of the dance ops: the one place where they are written.

Source: docs/ops.md. Changing anything here means a new DOMAIN_VERSION.
"""

DOMAIN = "dance"
DOMAIN_VERSION = 1

ACTIVATION_GATE = "ActivationGate"
GATED_CONV3D = "GatedConv3d"
GATED_CONV3D_ADD = "GatedConv3dAdd"
ACTIVATION_GATE_CL = "ActivationGateCl"
GATED_CONV3D_CL = "GatedConv3dCl"
GATED_CONV3D_ADD_CL = "GatedConv3dAddCl"

CHANNELS_LAST = {
    ACTIVATION_GATE: ACTIVATION_GATE_CL,
    GATED_CONV3D: GATED_CONV3D_CL,
    GATED_CONV3D_ADD: GATED_CONV3D_ADD_CL,
}
TO_CHANNELS_LAST = "ToChannelsLast"
MAX_POOL3D_CL = "MaxPool3dCl"
SCALED_SWISH_CL = "ScaledSwishCl"

# The same ops with two outputs more, MAGNITUDES of Y, and the gate that reads these of X beside it: what the op that
# makes an activation measures while it is in the cache, its gate need not read it for. Between our own ops only.
WITH_MAGNITUDES = {
    GATED_CONV3D: "GatedConv3dMagnitudes",
    GATED_CONV3D_CL: "GatedConv3dMagnitudesCl",
    GATED_CONV3D_ADD_CL: "GatedConv3dAddMagnitudesCl",
    TO_CHANNELS_LAST: "ToChannelsLastMagnitudes",
    MAX_POOL3D_CL: "MaxPool3dMagnitudesCl",
}
ACTIVATION_GATE_MAGNITUDES_CL = "ActivationGateMagnitudesCl"
# the gate that counts as well, for an activation that comes without magnitudes
ACTIVATION_GATE_COUNTS_CL = "ActivationGateCountsCl"
# means of |Y|: [N, T, C] over pixels, [N, T, H, W] over channels
MAGNITUDES = ("channel_magnitude", "pixel_magnitude")

COUNTING_GATES = (ACTIVATION_GATE_MAGNITUDES_CL, ACTIVATION_GATE_COUNTS_CL)
GATES = (ACTIVATION_GATE, ACTIVATION_GATE_CL) + COUNTING_GATES
_CONVS = (GATED_CONV3D, GATED_CONV3D_ADD, GATED_CONV3D_CL, GATED_CONV3D_ADD_CL)
CONVS = _CONVS + tuple(WITH_MAGNITUDES[conv] for conv in _CONVS if conv in WITH_MAGNITUDES)
# A 1x1x1 gated convolution and the depthwise one that alone reads what it makes, the latter's swish too
EXPAND_DEPTHWISE_CL = "ExpandDepthwiseCl"
EXPAND_DEPTHWISE_SWISH_CL = "ExpandDepthwiseSwishCl"
EXPANDING = (EXPAND_DEPTHWISE_CL, EXPAND_DEPTHWISE_SWISH_CL)
# What a channels-last body needs besides: not gated, no masks
_LAYOUT_OPS = (TO_CHANNELS_LAST, MAX_POOL3D_CL)
LAYOUT_OPS = _LAYOUT_OPS + tuple(WITH_MAGNITUDES[op] for op in _LAYOUT_OPS) + (SCALED_SWISH_CL,)
# The controller behind the stem's magnitudes, in controller_kernels.onnx
THRESHOLDS = "Thresholds"
# the same, which also tells when; made as graphs are loaded (runtime/one_graph.py), so that it needs no function
THRESHOLDS_CLOCK = "ThresholdsClock"
OP_TYPES = GATES + CONVS + EXPANDING + LAYOUT_OPS + (THRESHOLDS,)

# what a gate drops, in the order of its masks, of tau's columns and of `kept`
KINDS = ("frames", "channels", "features")
MASK_NAMES = ("frame_keep", "channel_keep", "feature_keep")
GATE_INPUTS = ("X", "tau")
GATE_MAGNITUDES_INPUTS = GATE_INPUTS + MAGNITUDES
KEPT = "kept"    # int64 [N, 3], last output of COUNTING_GATES
THRESHOLDS_INPUTS = MAGNITUDES + ("budget", "frame_bins", "grid_rows", "grid_columns", "asked", "fed", "hidden_W",
                                  "hidden_B", "output_W", "output_B", "tau_scale")
CONV_INPUTS = ("X", "W", "B") + MASK_NAMES
CONV_ADD_INPUTS = CONV_INPUTS + ("Z",)
EXPAND_INPUTS = CONV_INPUTS + ("depthwise_W", "depthwise_B")

KERNEL_SHAPE = "kernel_shape"    # of MaxPool3dCl, which has no default for it
STRIDES = "strides"
PADS = "pads"
DILATIONS = "dilations"
GROUP = "group"
MIN = "min"
DEPTHWISE_MIN = "depthwise_min"    # of the ops in EXPANDING: MIN is the expansion's
STRIDES_DEFAULT = (1, 1, 1)
PADS_DEFAULT = (0, 0, 0, 0, 0, 0)
DILATIONS_DEFAULT = (1, 1, 1)
GROUP_DEFAULT = 1
MIN_DEFAULT = -3.4028234663852886e38    # the lowest finite float32: no clamp

# String attributes that TensorRT's ONNX parser looks a plugin up by; every implementation accepts and ignores them.
PLUGIN_ATTRIBUTES = {"plugin_version": "1", "plugin_namespace": ""}

# An implementation may decide differently only where |m - tau * mean| <= GATE_TOLERANCE * mean.
GATE_TOLERANCE = 1e-5
# Float32 sums cannot tell equal magnitudes from those that differ by less, relative to the largest: implementations
# keep what is so near it, lest they drop some of several that attain it.
GATE_TIE = 64 * 2.0 ** -24
