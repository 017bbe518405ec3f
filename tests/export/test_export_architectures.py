"""Every architecture exports: all rungs of the parity ladder, on clips small enough for a test."""

import numpy as np
import pytest
import torch
from export_nets import randomize_norms, threshold

from dance_deploy import models, profiles
from dance_deploy.export import parity
from dance_deploy.export.graphs import graphs_from_model
from dance_deploy.method.surgery import gate_model
from dance_deploy.ops import names
from dance_deploy.runtime.kernels import library_path

CLIPS = {"small": (4, 24, 40), "r3d18": (4, 48, 40), "mc3_18": (4, 48, 40), "r2plus1d18": (4, 48, 40),
         "x3d_s": (4, 160, 160)}


def moving_patch(shape, seed):
    """Noise with a bright patch at a place that depends on the seed."""
    rng = np.random.default_rng(seed)
    clip = rng.standard_normal(shape).astype(np.float32) * 0.3
    h, w = shape[-2] // 3, shape[-1] // 3
    clip[..., seed * h:seed * h + h, seed * w:seed * w + w] += 1.5
    return clip


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_all_rungs_agree(name):
    shape = (1, 3, *CLIPS[name])
    torch.manual_seed(0)
    net = models.build(name, 6, seed=1)
    randomize_norms(net)
    model = threshold(gate_model(net, shape), 0.2).eval()
    graphs = graphs_from_model(model, profiles.load("cpu"))
    library = library_path()
    runs = parity.ladder(model, graphs, [moving_patch(shape, seed) for seed in (0, 1)], 0.5, library)
    masks = [m for layer in runs[0].layers for m in layer.masks]
    assert not all(m.all() for m in masks), "nothing was pruned, so nothing was compared"
    if library is None:
        pytest.skip("the rung of the op library was left out: run make -C kernels")


def test_c3d_emits_and_its_dense_graph_equals_torch():
    # its fully connected layers bind it to whole clips, on which the whole ladder takes minutes
    spec = models.get("c3d").clip
    model = gate_model(models.build("c3d", 6, seed=1), spec.shape).eval()
    graphs = graphs_from_model(model, profiles.load("cpu"))
    parity.check_dense(model, graphs, moving_patch(spec.shape, 1))
    assert sum(n.op_type in names.GATES for n in graphs.body.graph.node) == 7
