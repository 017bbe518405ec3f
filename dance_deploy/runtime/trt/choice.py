"""Dense or gated, per gate: measured on this device, each gate with its convolutions alone, in both forms."""
import numpy as np

from dance_deploy.runtime.trt import graph_edit
from dance_deploy.runtime.trt.onnx_file import Model
from dance_deploy.runtime.trt.records import Timing

_WARM_UP, _REPEATS = 3, 15


def measured(build, open_session, device, body, manifest, golden, progress):
    """{gate: Timing} at the masks and thresholds of the golden clip.

    build: Model, what -> plan; open_session: plan, what -> Session; body: bytes of the body graph with its masks.
    Times are the device's own, medians, the two forms in turns: what changes with temperature hits both.
    """
    timings = {}
    for number, gate in enumerate(manifest.gates):
        progress.step("measuring {} ({} of {}) gated and dense".format(gate.name, number + 1, len(manifest.gates)))
        sessions = []
        try:
            for gated in (True, False):
                model = Model(body)
                shapes = graph_edit.only_one_gate(model, number, gate.input_size, gated)
                what = "{} alone, {}".format(gate.name, "gated" if gated else "dense")
                sessions.append(open_session(build(model, what), what))
                sessions[-1].upload(_feeds(shapes, golden, number))
            timings[gate.name] = Timing(*_in_turns(device, sessions))
        finally:
            for session in sessions:
                session.close()
    return timings


def gates_to_leave(timings):
    """Names of the gates that cost more than they save."""
    return tuple(name for name, timing in timings.items() if timing.gated_ms >= timing.dense_ms)


def _feeds(shapes, golden, number):
    rng = np.random.RandomState(number)  # default_rng needs numpy 1.17
    masks = golden.masks[number]
    feeds = {}
    for name, shape in shapes.items():
        if name.endswith(".given"):
            mask = next(m for m, kind in zip(masks, masks._fields) if name.endswith(kind + ".given"))
            feeds[name] = np.asarray(mask)[None]
        elif name == "tau.row":
            feeds[name] = golden.tau[number][None]
        else:  # values do not matter to the time, zeros and denormals might
            feeds[name] = rng.standard_normal(shape)
    return feeds


def _in_turns(device, sessions):
    for session in sessions:
        for _ in range(_WARM_UP):
            session.enqueue()
    device.synchronize()
    times = [[device.timed(session.enqueue) for session in sessions] for _ in range(_REPEATS)]
    return [float(np.median(column)) for column in zip(*times)]
