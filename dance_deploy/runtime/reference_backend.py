"""Backend `reference`: every op as its definition says, in numpy; slow, for checking the others."""
import numpy as np

from dance_deploy.errors import MissingPackageError, OperationError
from dance_deploy.ops import definition, names
from dance_deploy.runtime import backends


class Backend(backends.BackendBase):
    """onnx's reference evaluator with the dance ops by ops.definition; Conv too, because onnx's own takes hours."""

    name = "reference"
    description = "the numpy definition"

    def __init__(self):
        super(Backend, self).__init__()
        self._controller = self._body = self._dense = None

    def load_impl(self, bundle, gated, dense, threads):
        if gated:
            self._controller = evaluator_from_bytes(bundle.read("controller.onnx"), "controller.onnx")
            self._body = evaluator_from_bytes(backends.body_with_masks(bundle), "body.onnx")
        if dense:
            self._dense = evaluator_from_bytes(bundle.read("dense.onnx"), "dense.onnx")

    def run_controller_impl(self, clip, budget):
        return self._controller.run(["stem", "tau"], {"clip": clip, "budget": budget})

    def run_body_impl(self, stem, tau):
        found = self._body.run(["logits", "kept"] + self._mask_names, {"stem": stem, "tau": tau})
        return found[0], found[1], found[2:]

    def run_dense_impl(self, clip):
        return self._dense.run(["logits"], {"clip": clip})[0]

    def close(self):
        self._controller = self._body = self._dense = None


def evaluator_from_bytes(data, graph):
    """A ReferenceEvaluator of the model in `data` that knows the dance ops; graph: its name in errors."""
    try:
        import onnx
        from onnx.reference import ReferenceEvaluator
    except ImportError:
        raise MissingPackageError("onnx", "export", "the backend 'reference'") from None
    try:
        return ReferenceEvaluator(onnx.load_from_string(data), new_ops=_operators())
    except Exception as error:  # protobuf and onnx raise many unrelated types here
        raise OperationError("{} is undamaged, but onnx {} cannot evaluate it: {}".format(
            graph, onnx.__version__, str(error).split("\n")[0][:300])) from error


def _operators():
    """OpRun classes; the evaluator finds each by its name and domain, before the model's own functions."""
    from onnx.reference.op_run import OpRun

    def operator(op_type, domain, run):
        return type(op_type, (OpRun,), {"op_domain": domain, "_run": run})

    dance = {
        names.ACTIVATION_GATE: _gate(definition.activation_gate),
        names.ACTIVATION_GATE_CL: _gate(definition.activation_gate_cl),
        names.GATED_CONV3D: _gated_conv(definition.gated_conv3d),
        names.GATED_CONV3D_ADD: _gated_conv(definition.gated_conv3d),
        names.GATED_CONV3D_CL: _gated_conv(definition.gated_conv3d_cl),
        names.GATED_CONV3D_ADD_CL: _gated_conv(definition.gated_conv3d_cl),
    }
    dance.update({op_type: _expand(op_type == names.EXPAND_DEPTHWISE_SWISH_CL) for op_type in names.EXPANDING})
    convs = {op_type: run for op_type, run in dance.items() if op_type in names.WITH_MAGNITUDES}
    dance.update({names.WITH_MAGNITUDES[op_type]: _with_magnitudes(run, op_type != names.GATED_CONV3D)
                  for op_type, run in convs.items()})
    dance.update(dict.fromkeys(names.COUNTING_GATES, _gate_and_count))
    return [operator(op_type, names.DOMAIN, run) for op_type, run in dance.items()] + [operator("Conv", "", _conv)]


def _gate(gate):
    def run(self, x, tau, **_):
        return tuple(gate(x, tau))
    return run


def _gate_and_count(self, x, tau, channel_magnitude=None, pixel_magnitude=None, **_):
    masks = definition.activation_gate_cl(x, tau)
    return (*masks, np.stack([mask.reshape(len(mask), -1).sum(1) for mask in masks], 1))


def _with_magnitudes(conv, last):
    def run(self, *inputs, **attributes):
        (y,) = conv(self, *inputs, **attributes)
        found = definition.magnitudes(np.transpose(y, (0, 4, 1, 2, 3)) if last else y)
        return (y, *(means.astype(np.float32) for means in found))
    return run


def _gated_conv(conv):
    def run(self, x, w, b, frame_keep, channel_keep, feature_keep, z=None, min=names.MIN_DEFAULT, **attributes):
        y = conv(x, w, b, frame_keep, channel_keep, feature_keep, z, minimum=min, **_conv_attributes(attributes))
        return (y,)
    return run


def _expand(swish):
    def run(self, *inputs, min=names.MIN_DEFAULT, depthwise_min=names.MIN_DEFAULT, **attributes):
        return (definition.expand_depthwise_cl(*inputs, minimum=min, depthwise_minimum=depthwise_min, swish=swish,
                                               **_conv_attributes(attributes)),)
    return run


def _conv(self, x, w, b=None, **attributes):
    return (definition.conv3d(x, w, b, **_conv_attributes(attributes)),)


def _conv_attributes(attributes):
    """The attributes that the definition takes, where given; the plugin's and derived ones are dropped."""
    kept = {key: attributes.get(key) for key in (names.STRIDES, names.PADS, names.DILATIONS, names.GROUP)}
    return {key: value for key, value in kept.items() if value is not None}
