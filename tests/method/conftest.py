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


@pytest.fixture(scope="session")
def splits(tiny_videos):
    return open_dataset(str(tiny_videos))


@pytest.fixture
def one_thread():
    """Sums in one order, so that runs can be compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(splits, one_thread, request):
    """run(out, settings, reporter, **of Request) -> Outcome; settings: SHORT of the test's module where not given"""
    from training_helpers import train_tiny
    return lambda out, settings=request.module.SHORT, *rest, **options: train_tiny(splits, out, settings, *rest,
                                                                                   **options)


@pytest.fixture(scope="module")
def finished(splits, tmp_path_factory, request):
    """The Outcome of an uninterrupted run with SHORT of the test's module, one thread."""
    from training_helpers import train_tiny
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    outcome = train_tiny(splits, tmp_path_factory.mktemp("finished") / "c.pt", request.module.SHORT)
    torch.set_num_threads(threads)
    return outcome
