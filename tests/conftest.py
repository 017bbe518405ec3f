"""Fixtures that several folders of tests share."""
import os
import signal
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)    # for tiny_bundle: pytest's importlib mode adds no folder to the path
# what dance-bench tune found for whoever runs the tests is no part of them
os.environ["DANCE_COSTS"] = "built-in"
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # a shell's background job, as a CI may run us: programs that tests press Ctrl-C on would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    # under nohup the same; we ourselves go on when the terminal does not
    signal.signal(signal.SIGHUP, lambda number, frame: None)


try:
    import hypothesis
except ImportError:
    pass    # tests that need it say so
else:
    # a machine that stands still for a while is not a slow test
    hypothesis.settings.register_profile("dance", deadline=None,
                                         suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("dance")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """Folder of a small real bundle; tests must not change it."""
    from tiny_bundle import write_tiny_bundle
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_tiny_bundle(folder)
    return str(folder)


@pytest.fixture
def own_bundle(tmp_path):
    """Folder of a small real bundle that the test may damage."""
    from tiny_bundle import write_tiny_bundle
    folder = tmp_path / "own"
    write_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def python():
    """python(*arguments, **options of subprocess.run): runs this interpreter on the checkout, output captured."""
    def run(*arguments, **options):
        environment = dict(os.environ, PYTHONPATH=ROOT, PYTHONDONTWRITEBYTECODE="1", PYTHONIOENCODING="utf-8")
        environment.update(options.pop("env", {}))
        return subprocess.run([sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              encoding="utf-8", timeout=180, env=environment, **options)
    return run
