"""Pictures of a training run, drawn from events alone."""
import pytest

pytest.importorskip("matplotlib")

from dance_deploy.errors import OperationError  # noqa: E402
from dance_deploy.report.history import draw_history  # noqa: E402
from dance_deploy.report.magnitudes import draw_magnitudes  # noqa: E402

SPREAD = {"variation": 0.2, "hoyer": 0.1, "histogram": [0.25, 0.5, 0.25]}
SCORE = {"budget": None, "clip_top1": 0.5, "share": 1.0}
EVENTS = [
    {"event": "epoch", "phase": "dense", "epoch": 1, "loss": 1.0, "accuracy": 0.5},
    {"event": "evaluation", "phase": "dense", "epoch": 1, "scores": [SCORE]},
    {"event": "magnitudes", "stage": "dense", "kinds": {"frames": SPREAD, "features": SPREAD}},
    {"event": "epoch", "phase": "aap", "epoch": 1, "loss": None, "accuracy": 0.5, "share": 0.7},
    {"event": "evaluation", "phase": "finish", "split": "test", "scores": [SCORE]},
    {"event": "of a later version"},
]


@pytest.mark.parametrize("draw", [draw_history, draw_magnitudes])
def test_pictures_appear_whole_or_not_at_all(draw, tmp_path):
    assert draw(EVENTS, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes()[-8:-4] == b"IEND"
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
    assert not draw([], tmp_path / "none.png") and not (tmp_path / "none.png").exists()
    with pytest.raises(OperationError, match="cannot write"):
        draw(EVENTS, tmp_path / "absent" / "p.png")
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
