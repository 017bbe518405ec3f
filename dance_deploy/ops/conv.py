"""dance::GatedConv3d and dance::GatedConv3dAdd in numpy: a 3D convolution of what three masks keep.

Source: docs/ops.md; padding and output size as in ONNX Conv.
"""
import numpy as np

from dance_deploy.ops import names, shapes


def conv3d(x, w, b=None, **attributes):
    """ONNX Conv over three axes: all kept, no clamp.

    x: [N, C, T, H, W]; w: [M, C/group, kT, kH, kW]; b: [M] or None; all of x's type; attributes: strides, pads (six:
    begins, then ends), dilations, group, name. Returns [N, M, T', H', W'] of x's type.
    Raises InputError, naming op, input and both shapes, where sizes do not fit.
    """
    conv, place = _attributes("Conv", **attributes)
    x, w = np.asarray(x), np.asarray(w)
    b = None if b is None else np.asarray(b)
    geometry = shapes.conv_geometry(place, x, w, b, conv)
    y = _empty_output(x, geometry)
    with np.errstate(over="ignore", invalid="ignore"):
        for n in range(x.shape[0]):
            y[n] = _conv_clip(x[n], w, b, geometry)
    return y


def gated_conv3d(x, w, b, frame_keep, channel_keep, feature_keep, z=None, minimum=names.MIN_DEFAULT, **attributes):
    """Convolve what the masks keep: y = max(conv(x kept, w) + b (+ z), minimum).

    x:            [N, C, T, H, W] float16, float32 or float64, any strides; never written
    w, b:         [M, C/group, kT, kH, kW] and [M], of x's type; finite (a pruned value is 0, and 0 * inf is NaN)
    frame_keep:   [N, T]    bool, or a number whose nonzero means keep; a pruned slice contributes exactly 0, even
    channel_keep: [N, C]    where x is NaN
    feature_keep: [N, H, W]
    z:            None, or [N, M, T', H', W'] of x's type: then this is GatedConv3dAdd
    minimum:      the attribute `min`; 0 is a fused ReLU; a NaN stays one
    attributes:   strides, pads, dilations, group as in ONNX Conv; name: the layer's, for errors
    Returns [N, M, T', H', W'] of x's type; sums in float64 where x is float64, else in float32.
    Raises InputError, naming op, input and both shapes, where sizes do not fit.
    """
    op = names.GATED_CONV3D if z is None else names.GATED_CONV3D_ADD
    return _gated_conv3d(op, x, w, b, (frame_keep, channel_keep, feature_keep), z, minimum, attributes)


def gated_conv3d_cl(x, w, b, frame_keep, channel_keep, feature_keep, z=None, minimum=names.MIN_DEFAULT, **attributes):
    """`gated_conv3d` with channels-last x [N, T, H, W, C], z and result [N, T', H', W', M]; the rest unchanged.

    Errors give the shapes of x and z in the order N, C, T, H, W, and say so.
    """
    op = names.GATED_CONV3D_CL if z is None else names.GATED_CONV3D_ADD_CL
    x, z = shapes.channels_first(x), None if z is None else shapes.channels_first(z)
    masks = (frame_keep, channel_keep, feature_keep)
    y = _gated_conv3d(op + shapes.ORDER_OF_CL, x, w, b, masks, z, minimum, attributes)
    return np.ascontiguousarray(np.transpose(y, (0, 2, 3, 4, 1)))


def _gated_conv3d(op, x, w, b, masks, z, minimum, attributes):
    conv, place = _attributes(op, **attributes)
    x, w, b = np.asarray(x), np.asarray(w), np.asarray(b)
    geometry = shapes.conv_geometry(place, x, w, b, conv)
    frames, channels, features = (np.asarray(mask) != 0 for mask in masks)
    shapes.check_masks_shape(place, (frames, channels, features), x.shape)
    y = _empty_output(x, geometry)
    if z is not None:
        z = np.asarray(z)
        shapes.check_shape(place, "Z", z, y.shape, f"Y for X {shapes.text(x.shape)}, W {shapes.text(w.shape)}")
        shapes.check_type(place, "Z", z, (x.dtype.type,))
    with np.errstate(over="ignore", invalid="ignore"):    # a kept NaN or infinity, a float16 that overflows: as asked
        for n in range(x.shape[0]):
            sums = _conv_clip(_select(x[n], frames[n], channels[n], features[n]), w, b, geometry)
            if z is not None:
                sums += z[n]
            y[n] = np.maximum(sums, sums.dtype.type(minimum), out=sums)
    return y


def _attributes(op, strides=names.STRIDES_DEFAULT, pads=names.PADS_DEFAULT, dilations=names.DILATIONS_DEFAULT,
                group=names.GROUP_DEFAULT, name=None):
    """The attributes with their defaults filled in, and how errors call this node."""
    conv = {names.STRIDES: tuple(int(v) for v in strides), names.PADS: tuple(int(v) for v in pads),
            names.DILATIONS: tuple(int(v) for v in dilations), names.GROUP: int(group)}
    return conv, shapes.where(op, name)


def _empty_output(x, geometry):
    return np.empty((x.shape[0], geometry.out_channels) + geometry.out_size, dtype=x.dtype)


def _select(x, frames, channels, features):
    """x: [C, T, H, W] with zeros where a mask drops it: selected, not multiplied, since 0 * NaN is NaN."""
    keep = channels[:, None, None, None] & (frames[:, None, None] & features)
    return np.where(keep, x, x.dtype.type(0))


def _conv_clip(x, w, b, geometry):
    """x: [C, T, H, W] -> [M, T', H', W'] in the type of the sums: one matmul per output frame and tap.

    A tap reads the padded input at a fixed offset, so its operand is a plain slice of the flattened frame, and nothing
    is unfolded. The slice runs over the row ends; what is computed there is cut off at the end.
    """
    g = geometry
    out_t, out_h, out_w = g.out_size
    sums = np.float64 if x.dtype == np.float64 else np.float32
    padded = np.pad(x.astype(sums), [(0, 0)] + [(g.pads[axis], g.pads[axis + 3]) for axis in range(3)], mode="constant")
    # taps first, so that the matrix of each tap lies together
    weights = np.ascontiguousarray(np.transpose(w.astype(sums), (2, 3, 4, 0, 1))).reshape(
        g.kernel + (g.group, g.out_channels // g.group, g.in_channels // g.group))
    phases, row = _phases(padded, g)
    columns = (out_h - 1) * row + out_w
    y = np.zeros((g.group, g.out_channels // g.group, out_t, out_h * row), dtype=sums)
    for t in range(out_t):
        acc = np.zeros(y.shape[:2] + (columns,), dtype=sums)
        for tap in np.ndindex(*g.kernel):
            at_t, at_h, at_w = (k * d for k, d in zip(tap, g.dilations))
            phase = phases[at_h % g.strides[1], at_w % g.strides[2]]
            first = at_h // g.strides[1] * row + at_w // g.strides[2]
            reads = phase[:, :, t * g.strides[0] + at_t, first:first + columns]
            acc += _matmul(weights[tap], reads)
        y[:, :, t, :columns] = acc
    y = y.reshape((g.out_channels, out_t, out_h, row))[..., :out_w]
    return y if b is None else y + b.astype(sums)[:, None, None, None]


def _matmul(weights, reads):
    """[group, M/group, C/group] x [group, C/group, n] -> [group, M/group, n]."""
    # one channel a group (depthwise): an outer product, which numpy's matmul does many times slower
    return weights * reads if reads.shape[1] == 1 else np.matmul(weights, reads)


def _phases(padded, geometry):
    """The padded input split by its strides along H and W, so that every tap reads neighbouring numbers.

    Returns {(h % stride, w % stride): [group, C/group, T padded, flattened H and W]} and the length of one row. Rows
    and columns are as many in every phase, zeros where the input ends.
    """
    g = geometry
    _, stride_h, stride_w = g.strides
    rows, row = (-(-padded.shape[2 + i] // stride) for i, stride in enumerate((stride_h, stride_w)))
    missing = [(0, rows * stride_h - padded.shape[2]), (0, row * stride_w - padded.shape[3])]
    full = np.pad(padded, [(0, 0), (0, 0)] + missing, mode="constant")
    shape = (g.group, g.in_channels // g.group, padded.shape[1], rows * row)
    return {(h, w): np.ascontiguousarray(full[:, :, h::stride_h, w::stride_w]).reshape(shape)
            for h in range(stride_h) for w in range(stride_w)}, row
