"""A rendered data set small enough for training in seconds."""
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("av")

from dance_deploy.data import open_dataset  # noqa: E402

# pytest's importlib mode adds no folder to the path
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory):
    """Folder of the rendered data set: 8 classes, 4 clips each of 8 frames of 32x32."""
    folder = tmp_path_factory.mktemp("tiny_videos") / "rendered"
    open_dataset("rendered", render_dir=folder, clips_per_class=4, size=(32, 32), frames=8)
    return folder


@pytest.fixture
def one_thread():
    """Sums in one order, so that runs can be compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
