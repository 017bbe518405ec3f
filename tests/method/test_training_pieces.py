"""Losses, schedule, settings and metrics file, each on its own."""
import json
import math

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dance_deploy.errors import InputError, OperationError  # noqa: E402
from dance_deploy.method.ava import AvaWeights, ava_spread  # noqa: E402
from dance_deploy.method.saliency import magnitudes  # noqa: E402
from dance_deploy.method.surgery import gate_model  # noqa: E402
from dance_deploy.method.training.losses import distillation, mac_penalty  # noqa: E402
from dance_deploy.method.training.metrics import MetricsFile, read_metrics  # noqa: E402
from dance_deploy.method.training.precision import choose  # noqa: E402
from dance_deploy.method.training.schedule import learning_rate_factor, ramp_factor  # noqa: E402
from dance_deploy.method.training.settings import OPTIONS, TrainSettings, differences  # noqa: E402
from dance_deploy.models import build  # noqa: E402


def test_distillation_is_nothing_between_equals_and_teaches_the_student_only():
    student = torch.randn(4, 5, requires_grad=True)
    assert distillation(student, student.detach()).item() == pytest.approx(0.0, abs=1e-6)
    assert distillation(student, torch.randn(4, 5)).item() > 0


def test_penalty_is_zero_on_budget_and_weighs_both_sides():
    b = torch.tensor(0.4)
    assert mac_penalty(b, b, 2.0, 0.5).item() == 0.0
    assert mac_penalty(2 * b, b, 2.0, 0.5).item() == pytest.approx(2.0 * math.log(2))
    assert mac_penalty(b / 2, b, 2.0, 0.5).item() == pytest.approx(0.5 * math.log(2))


@given(steps=st.integers(1, 300), part=st.floats(0.01, 0.9))
def test_schedules_start_rise_and_fall(steps, part):
    factors = [learning_rate_factor(i, steps, part) for i in range(steps)]
    assert all(0.0 < f <= 1.0 for f in factors) and max(factors) == 1.0
    top = factors.index(1.0)
    assert factors[:top + 1] == sorted(factors[:top + 1]) and factors[top:] == sorted(factors[top:], reverse=True)
    ramp = [ramp_factor(i, steps, part) for i in range(steps)]
    assert ramp[0] == 0.0 and ramp == sorted(ramp) and max(ramp) <= 1.0


@pytest.mark.parametrize("form", ["variance", "hoyer"])
def test_ava_rises_with_the_spread_and_stays_below_its_weights(form):
    even, uneven = torch.ones(2, 3, 4, 5, 6), torch.ones(2, 3, 4, 5, 6)
    uneven[:, :, :, 0, 0] = 50.0
    low, high = (ava_spread([magnitudes(x)], AvaWeights(0.0, 0.0, 1.0), form) for x in (even, uneven))
    assert low.item() == pytest.approx(0.0, abs=1e-6) and 0.1 < high.item() < 1.0
    with pytest.raises(InputError, match="form 'cubic'"):
        ava_spread([], form="cubic")


@pytest.mark.parametrize("option,change", [
    ("--target-macs", {"target_macs": 1.0}), ("--target-macs", {"target_macs": 0.0}), ("--kinds", {"kinds": ()}),
    ("--kinds", {"kinds": ("sound",)}), ("--epochs-aap", {"epochs_aap": -1}), ("--batch", {"batch": 0}),
    ("--seed", {"seed": -1}), ("--lr", {"lr_dense": 0.0}), ("--lr", {"lr_aap": float("nan")}),
    ("--lr", {"lr_ava": -1.0}), ("the setting ava_form", {"ava_form": "x"}),
    ("the setting tau_max", {"tau_max": (0.1, 1.5, 1.5)}), ("the setting eval_every", {"eval_every": 0}),
    ("the setting tau_max", {"tau_max": (0.9, 1.5, float("inf"))}), ("--static-share", {"static_share": 1.0}),
    ("--static-share", {"static_share": float("nan")}), ("--static-by", {"static_by": "luck"}),
    ("--static-allocation", {"static_allocation": "x"}), ("--static-scope", {"static_scope": "x"}),
    ("the setting thresholds_from", {"thresholds_from": "x"}), ("--precision", {"precision": "int4"})])
def test_senseless_settings_name_their_option(option, change):
    with pytest.raises(InputError, match=f"^{option} is "):
        TrainSettings(**change).check()


def test_options_that_settings_are_named_by_are_on_the_command_line():
    typer = pytest.importorskip("typer")
    from dance_deploy.cli import train

    there = {text for option in typer.main.get_command(train.app).params for text in option.opts}
    settings = TrainSettings().as_dict()
    assert set(OPTIONS) <= set(settings) and set(OPTIONS.values()) <= there
    # and nothing that the command line sets goes by another name
    assert {name for name in settings if "--" + name.replace("_", "-") in there} <= set(OPTIONS)


@given(clips=st.integers(1, 10**6))
def test_epochs_follow_from_the_size_of_the_data(clips):
    found = TrainSettings(epochs_ava=3).resolved(clips)
    assert 30 <= found.epochs_dense <= 100 and found.epochs_ava == 3 and 20 <= found.epochs_aap <= 50
    assert 1 <= found.windows <= 4 and (found.windows == 1 or found.windows * clips < 200)


def test_a_cpu_trains_in_float32_and_says_why_not_in_less():
    cpu = torch.device("cpu")
    assert choose(cpu) == choose(cpu, "float32") == "float32"
    with pytest.raises(InputError, match="--precision bfloat16 needs a GPU"):
        choose(cpu, "bfloat16")


def test_half_precision_activations_are_gated_in_float32():
    """What a GPU does in bfloat16: thresholds, masks and shares as exact as ever."""
    network = gate_model(build("small", 4, seed=0), (1, 3, 6, 20, 24))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        network(torch.randn(2, 3, 6, 20, 24), torch.tensor([0.3, 0.6]))
    assert all(mask.dtype == torch.float32 for gate in network.gates for mask in gate.masks)
    share = network.macs_share()
    assert share.dtype == torch.float32 and (share > 0).all() and (share < 1.1).all()


def test_a_low_target_is_inside_of_what_is_trained():
    assert TrainSettings(target_macs=0.1).resolved(50).lowest_budget == 0.1


def test_differences_name_the_options():
    old = TrainSettings(seed=1, kinds=("features",)).as_dict()
    assert differences(json.loads(json.dumps(old)), TrainSettings(seed=1, kinds=("features",))) == []
    assert differences(old, TrainSettings(seed=2)) == ["--kinds features, now frames,features", "--seed 1, now 2"]
    old = TrainSettings(lr_dense=0.01, lr_aap=0.005, lr_ava=0.005, tau_max=(1.5, 1.5, 1.5)).as_dict()
    assert differences(old, TrainSettings()) == ["the setting tau_max 1.5,1.5,1.5, now 0.9,1.5,1.5",
                                                 "--lr 0.01, now 0.002"]


def test_metrics_are_cut_back_to_the_last_saved_state(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.append("epoch", loss=1.0)
    whole = metrics.length
    metrics.append("epoch", loss=float("nan"), nested={"share": [float("inf"), 1]})
    assert read_metrics(path)[1] == {"event": "epoch", "loss": None, "nested": {"share": [None, 1]}}
    path.write_bytes(path.read_bytes() + b'{"event": "epo')  # killed while writing
    assert len(read_metrics(path)) == 2
    again = MetricsFile(path, whole)
    again.append("epoch", loss=2.0)
    assert [e["loss"] for e in read_metrics(path)] == [1.0, 2.0]
    assert MetricsFile(path, 10**6).length == path.stat().st_size


def test_metrics_that_cannot_be_written(tmp_path):
    with pytest.raises(OperationError, match="cannot write"):
        MetricsFile(tmp_path / "absent" / "metrics.jsonl")
