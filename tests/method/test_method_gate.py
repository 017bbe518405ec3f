"""The training gate against the definition of the op, and its straight-through gradient."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dance_deploy.method.gate import Gate, gate_masks, keep  # noqa: E402
from dance_deploy.method.saliency import hoyer, magnitudes, squared_variation  # noqa: E402
from dance_deploy.ops.definition import activation_gate, check_masks  # noqa: E402

EXTENT = st.integers(1, 6)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3), c=EXTENT, t=EXTENT, h=EXTENT, w=EXTENT, seed=st.integers(0, 2**31), grad=st.booleans(),
       spread=st.sampled_from([0.0, 0.01, 1.0]))
def test_forward_decides_as_the_op_is_defined(n, c, t, h, w, seed, grad, spread):
    rng = np.random.default_rng(seed)
    x = (1.0 + spread * rng.standard_normal((n, c, t, h, w))).astype(np.float32)
    tau = rng.uniform(0.0, 1.5, (n, 3)).astype(np.float32)
    with torch.set_grad_enabled(grad):
        masks = gate_masks(torch.from_numpy(x), torch.from_numpy(tau).requires_grad_(grad))
    assert check_masks(x, tau, tuple(m.detach().numpy() > 0.5 for m in masks)) == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), tau=st.sampled_from([0.0, 0.5, 1.0, 1.25]))
@example(seed=11266, tau=1.0)  # three of four frames are kept, and one channel is at the mean of all
def test_exact_where_all_sums_are_exact(seed, tau):
    """Means of integers over a power of two of values are exact; over three frames a tie is anybody's."""
    x = np.random.default_rng(seed).integers(0, 3, (2, 4, 4, 4, 4)).astype(np.float32)
    thresholds = np.full((2, 3), tau, np.float32)
    expected = activation_gate(x, thresholds)
    masks = [mask.numpy() != 0 for mask in gate_masks(torch.from_numpy(x), torch.from_numpy(thresholds))]
    assert check_masks(x, thresholds, tuple(masks)) == []
    for n in range(2):
        for mask, wanted in zip(masks, expected, strict=True):
            assert np.array_equal(mask[n], wanted[n])
            if wanted[n].sum() == 3:  # of frames or channels; there are no other numbers that are no power of two
                break


@pytest.mark.parametrize("shape", [(1, 3, 3, 7, 7), (2, 33, 4, 17, 30), (1, 64, 2, 5, 3)])
def test_all_that_attain_the_largest_are_kept(shape):
    masks = gate_masks(torch.full(shape, 0.1), torch.full((shape[0], 3), 1.01))
    assert all(bool((mask == 1).all()) for mask in masks)


def test_masks_are_hard_in_value_and_soft_in_slope():
    m = torch.tensor([[0.5, 0.9, 1.1, 1.5]], requires_grad=True)
    tau = torch.tensor([1.0], requires_grad=True)
    mask = keep(m, tau)
    assert torch.equal(mask.detach().round(), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    mask.sum().backward()
    assert tau.grad.item() < 0 and torch.isfinite(m.grad).all() and m.grad.abs().sum() > 0


def test_gradient_reaches_input_and_every_threshold():
    x = torch.rand(2, 3, 4, 5, 6, requires_grad=True)
    tau = torch.full((2, 1, 3), 0.9, requires_grad=True)
    gate = Gate(0)
    gate(x, tau).square().sum().backward()
    assert (tau.grad != 0).all() and torch.isfinite(x.grad).all()


def test_open_gate_and_tau_zero_change_nothing():
    x = torch.randn(2, 3, 4, 5, 6)
    gate = Gate(0)
    assert torch.equal(gate(x, torch.zeros(2, 1, 3)), x)
    gate.open = True
    assert gate(x, torch.full((2, 1, 3), 9.0)) is x and gate.masks is None


def test_masked_output_is_the_product_of_the_masks():
    x = torch.randn(2, 3, 4, 5, 6)
    gate = Gate(1)
    tau = torch.rand(2, 2, 3) + 0.5
    y = gate(x, tau)
    frames, channels, features = gate.masks
    kept = channels[:, :, None, None, None] * frames[:, None, :, None, None] * features[:, None, None]
    assert torch.equal(y, x * kept)


def test_measured_magnitudes_and_their_spread():
    x = torch.zeros(1, 2, 2, 1, 2)
    x[0, 0] = 4.0  # one of two channels carries all
    m = magnitudes(x)
    assert m.frames.tolist() == [[2.0, 2.0]] and m.channels.tolist() == [[4.0, 0.0]]
    assert squared_variation(m.channels).item() == pytest.approx(1.0)
    assert hoyer(m.channels).item() == pytest.approx(1.0) and hoyer(m.frames).item() == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), dim=st.integers(2, 20))
def test_lemma_1_both_measures_rise_with_the_norm(seed, dim):
    """On the simplex, std and Hoyer order any two vectors alike."""
    pair = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(dim), 2))
    by_std, by_hoyer, by_norm = squared_variation(pair), hoyer(pair), pair.square().sum(1)
    order = by_norm[0] < by_norm[1]
    assert (by_std[0] < by_std[1]) == order and (by_hoyer[0] < by_hoyer[1]) == order


def test_magnitudes_of_nothing_have_no_spread_and_a_finite_gradient():
    m = torch.zeros(1, 4, requires_grad=True)
    (hoyer(m).sum() + squared_variation(m).sum()).backward()
    assert torch.isfinite(m.grad).all()
