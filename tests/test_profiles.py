"""Profiles: every shipped one loads, and a wrong one is one line."""
import json

import pytest

from dance_deploy import profiles
from dance_deploy.errors import InputError


def test_every_shipped_profile_loads():
    assert profiles.DEFAULT in profiles.names()
    for name in profiles.names():
        assert profiles.load(name).name == name


def test_an_unknown_name_lists_the_known():
    for name in ("nano2", "../profiles/cpu", ""):
        with pytest.raises(InputError, match="there are: .*cpu"):
            profiles.load(name)


@pytest.mark.parametrize("change, why", [
    ({"opset": 12}, "opset is 12"), ({"opset": True}, "opset is True"), ({"functions": 1}, "expected true or false"),
    ({"mask_dtype": "int8"}, "one of bool, float32"), ({"extra": 1}, "unknown key 'extra'"), ({"name": "b"}, "name is"),
    ({"description": None}, "description is None"), (None, "not JSON")])
def test_a_wrong_profile_is_named(tmp_path, change, why):
    good = {**profiles.load("cpu")._asdict(), "name": "a"}
    (tmp_path / "a.json").write_text("{" if change is None else json.dumps({**good, **change}))
    with pytest.raises(InputError) as caught:
        profiles.load("a", str(tmp_path))
    assert why in str(caught.value) and "a.json" in str(caught.value)


def test_a_missing_key_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"name": "a"}')
    with pytest.raises(InputError, match="key 'description' is missing"):
        profiles.load("a", str(tmp_path))
