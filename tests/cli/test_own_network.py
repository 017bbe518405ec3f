"""A network of the user's own, from FILE.py:FUNCTION to a bundle that passes its self-test."""
import pytest

pytest.importorskip("torch")
pytest.importorskip("typer")
pytest.importorskip("av")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from dance_deploy.cli import export, run, train  # noqa: E402
from dance_deploy.cli.entry import exit_code_of  # noqa: E402
from dance_deploy.data import open_dataset  # noqa: E402
from dance_deploy.errors import InputError  # noqa: E402

SOURCE = '''
from torch import nn
from torch.nn import functional as F
from dance_deploy.geometry import ClipSpec

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv3d(3, 4, 3, (1, 2, 2), 1)
        self.one = nn.Conv3d(4, 6, 3, 1, 1)
        self.two = nn.Conv3d(6, 6, 3, 1, 1)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        batch = x.shape[0]
        x = F.relu(self.one(F.relu(self.stem(x))))
        y = self.two(x)
        y += x
        y = F.adaptive_avg_pool3d(F.relu(y), 1).view(batch, -1)
        return self.fc(F.dropout(y, 0.1, self.training))

def net(classes):
    return Net(classes)

net.clip = ClipSpec(frames=6, stride=1, resize=(20, 24), size=(20, 24), mean=(0.4,) * 3, std=(0.2,) * 3)
'''


@pytest.fixture
def call(capfd):
    """call(module, arguments...) -> exit code, stdout, stderr of a command"""
    def start(module, *arguments):
        code = exit_code_of(module.app, [str(a) for a in arguments])
        return (code, *capfd.readouterr())
    return start


def test_from_a_file_of_ones_own_to_a_bundle(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    open_dataset("rendered", render_dir=tmp_path / "videos", clips_per_class=4, size=(32, 32), frames=8)
    epochs = ["--epochs-dense", "1", "--epochs-ava", "0", "--epochs-aap", "1"]
    code, _, err = call(train, "--data", "videos", "--arch", "mine.py:net", "-o", "c.pt", "--threads", "1",
                        "--windows", "1", *epochs)
    assert code == 0, err

    code, _, err = call(export, "c.pt", "-o", "bundle")  # a name in a file that came from elsewhere runs nothing
    assert code == 2 and "give --arch FILE.py:FUNCTION" in err and err.strip().count("\n") <= 1
    code, _, err = call(export, "c.pt", "-o", "bundle", "--arch", "r3d18")
    assert code == 2 and not (tmp_path / "bundle").exists()

    code, _, err = call(export, "c.pt", "-o", "bundle", "--arch", "mine.py:net")
    assert code == 0, err
    code, out, _ = call(run, "bundle", "--self-test")
    assert code == 0 and "checks passed" in out


def test_an_architecture_of_ours_takes_no_file(call, tmp_path):
    code, _, err = call(export, "small", "--untrained", "--arch", "mine.py:net", "-o", tmp_path / "b")
    assert code == 2 and "--arch goes with a checkpoint" in err


def test_a_network_for_another_number_of_classes_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE.replace("return Net(classes)", "return Net(400)"))
    open_dataset("rendered", render_dir=tmp_path / "videos", clips_per_class=4, size=(32, 32), frames=8)
    for asked in ([train, "--data", "videos", "--arch", "mine.py:net", "-o", "c.pt"],
                  [export, "mine.py:net", "--untrained", "--classes", "8", "-o", "bundle"]):
        code, _, err = call(*asked)
        assert code == 2 and "returns [1, 400] for 8 classes" in err.splitlines()[-1]
    assert not (tmp_path / "c.pt").exists() and not (tmp_path / "bundle").exists()


def test_what_export_will_refuse_is_said_before_training(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE.replace("F.relu(self.stem(x))", "F.hardswish(self.stem(x))"))
    open_dataset("rendered", render_dir=tmp_path / "videos", clips_per_class=4, size=(32, 32), frames=8)

    def begun(*_):
        raise InputError("training began")

    monkeypatch.setattr("dance_deploy.method.training.command.train", begun)
    asked = [train, "--data", "videos", "--arch", "mine.py:net", "-o", "c.pt"]
    *_, warning, ended = call(*asked)[2].splitlines()
    assert "training began" in ended and warning.startswith("warning: dance-export will refuse this network: ")
    code, _, err = call(export, "mine.py:net", "--untrained", "-o", "bundle")
    assert code == 2 and err.splitlines()[-1] == "error: " + warning.partition("network: ")[2]

    (tmp_path / "mine.py").write_text(SOURCE)
    assert "refuse" not in call(*asked)[2]
