"""Random cases of the dance ops, shared by the tests of this folder."""
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from dance_deploy.geometry import Conv3dGeometry


class ConvCase(NamedTuple):
    """Arrays and attributes of one gated convolution; `z` is None where there is no residual."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray
    masks: tuple
    z: np.ndarray
    attributes: dict


def random_masks(rng, x_shape, keep):
    """Bool masks of [N, C, T, H, W]; keep: share kept, 0 to 1."""
    n, c, t, h, w = x_shape
    return tuple(rng.random(shape) < keep for shape in ((n, t), (n, c), (n, h, w)))


def make_conv_case(rng, *, n, c_per_group, m_per_group, group, size, kernel, strides, pads, dilations, keep,
                   dtype=np.float32, with_z=False):
    """A case with these extents, filled by `rng`."""
    channels, filters = c_per_group * group, m_per_group * group
    geometry = Conv3dGeometry("case", channels, filters, tuple(size), tuple(kernel), tuple(strides), tuple(pads),
                              tuple(dilations), group)
    x = rng.standard_normal((n, channels) + tuple(size)).astype(dtype)
    w = rng.standard_normal((filters, c_per_group) + tuple(kernel)).astype(dtype)
    b = rng.standard_normal(filters).astype(dtype)
    z = rng.standard_normal((n, filters) + geometry.out_size).astype(dtype) if with_z else None
    attributes = {"strides": list(strides), "pads": list(pads), "dilations": list(dilations), "group": group}
    return ConvCase(x, w, b, random_masks(rng, x.shape, keep), z, attributes)


@st.composite
def conv_cases(draw, dtypes=(np.float32,)):
    """Any kernel, stride, padding, dilation and group that ONNX Conv allows, in small."""
    extent = st.integers(1, 3)
    kernel = [draw(extent) for _ in range(3)]
    dilations = [draw(st.integers(1, 2)) for _ in range(3)]
    pads = [draw(st.integers(0, 2)) for _ in range(6)]
    reach = [dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[i + 3] for i in range(3)]
    size = [max(1, reach[i]) + draw(st.integers(0, 4)) for i in range(3)]
    return make_conv_case(
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))), n=draw(st.integers(1, 3)), c_per_group=draw(extent),
        m_per_group=draw(extent), group=draw(extent), size=size, kernel=kernel,
        strides=[draw(extent) for _ in range(3)], pads=pads, dilations=dilations,
        keep=draw(st.sampled_from([0.0, 0.3, 0.7, 1.0])), dtype=draw(st.sampled_from(dtypes)),
        with_z=draw(st.booleans()))


@st.composite
def gate_cases(draw):
    """x [N, C, T, H, W] of small integers (many equal magnitudes) or of spread floats, and tau [N, 3]."""
    shape = tuple(draw(st.integers(1, 5)) for _ in range(5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        x = rng.integers(-3, 4, shape).astype(np.float32)
    else:
        spread = [rng.random([e if i == axis else 1 for i, e in enumerate(shape)]) for axis in range(1, 5)]
        x = (rng.standard_normal(shape) * spread[0] * spread[1] * spread[2] * spread[3]).astype(np.float32)
    tau = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 2.0, 1e6]), min_size=3 * shape[0],
                        max_size=3 * shape[0]))
    return x, np.array(tau, np.float32).reshape(shape[0], 3)
