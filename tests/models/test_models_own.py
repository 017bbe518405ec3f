"""Networks of the user's own, named FILE.py:FUNCTION: found, built, and refused in one line."""
import pytest

torch = pytest.importorskip("torch")

from dance_deploy import models  # noqa: E402
from dance_deploy.errors import InputError  # noqa: E402

SOURCE = '''
from neighbour import WIDTH
from torch import nn
from dance_deploy.geometry import ClipSpec

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv3d(3, WIDTH, 3)
        self.fc = nn.Linear(WIDTH, classes)

def net(classes):
    return Net(classes)

def clipped(classes):
    return Net(classes)

clipped.clip = ClipSpec(frames=8, stride=1, resize=(32, 40), size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)

def half(classes):
    return Net(classes).half()

def wrong_clip(classes):
    return Net(classes)

wrong_clip.clip = (8, 32, 32)

def broken(classes):
    raise ValueError("no such width\\nsecond line")

def number(classes):
    return classes

NOT_A_FUNCTION = 3
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text(SOURCE)
    (tmp_path / "neighbour.py").write_text("WIDTH = 7\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "bad_syntax.py").write_text("def net(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    return tmp_path


@pytest.mark.parametrize("name", ["own_net.py:net", "./own_net.py:net", "own_net:net"])
def test_a_network_is_built_from_a_file_or_a_module(folder, name):
    model = models.build(name, 4, seed=1)
    assert model.conv.out_channels == 7 and model.fc.out_features == 4
    assert torch.equal(model.conv.weight, models.build(name, 4, seed=1).conv.weight)


def test_a_network_in_half_precision_is_taken_in_float32(folder):
    assert {t.dtype for t in models.build("own_net.py:half", 4).state_dict().values()} == {torch.float32}


def test_the_clip_is_the_functions_own_or_the_usual_one(folder):
    assert models.get("own_net.py:net").clip.size == (112, 112)
    assert models.get("own_net.py:clipped").clip.size == (32, 32)


@pytest.mark.parametrize("name,said", [
    ("absent.py:net", "absent.py: no such file"), ("absent_module:net", "module 'absent_module' cannot be imported"),
    ("own_net.py:other", "has no function 'other'"), ("own_net.py:NOT_A_FUNCTION", "has no function"),
    ("bad_syntax.py:net", "cannot be imported: SyntaxError"), ("own_net.py:wrong_clip", "attribute 'clip'"),
    ("script.py:net", "cannot be imported: it ends the program"),
    ("own_net.py:broken", "with 4 classes failed: ValueError: no such width"),
    ("own_net.py:number", "returned a int"), (":net", "cannot be imported"), ("own_net.py:", "has no function ''")])
def test_what_cannot_be_built_is_one_line(folder, name, said):
    with pytest.raises(InputError) as caught:
        models.build(name, 4)
    assert said in str(caught.value) and "\n" not in str(caught.value)
