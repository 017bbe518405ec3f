"""The bundle: written whole or not at all, and nothing damaged gets past open_bundle."""
import copy
import hashlib
import json
import os
import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bundle import tiny_fields, tiny_files, write_tiny_bundle

from dance_deploy import bundle as bundles
from dance_deploy.bundle import check_replaceable, open_bundle, write_bundle
from dance_deploy.errors import InputError, OperationError
from dance_deploy.manifest import MAX_MANIFEST_BYTES, REQUIRED_FILES, manifest_from_tree

ALL_FILES = REQUIRED_FILES + ("manifest.json",)


@pytest.fixture(scope="module")
def tree():
    """The manifest of the small bundle as a tree of plain values."""
    entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
               for name, data in tiny_files().items()}
    return {**tiny_fields(), "format": "dance-bundle", "version": 1, "files": entries}


def change_manifest(folder, change):
    """Apply `change` to the tree of the manifest in `folder`."""
    path = folder / "manifest.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def refusal(folder, **options):
    """The one line with which opening `folder` is refused."""
    with pytest.raises(InputError) as caught:
        open_bundle(folder, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def content(folder):
    """{relative path: bytes} of everything in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- what a good bundle gives ---

def test_written_bundle_opens_and_reads_back(tmp_path):
    files = tiny_files()
    write_bundle(tmp_path / "new" / "bundle", tiny_fields(), files)
    opened = open_bundle(tmp_path / "new" / "bundle", keep=("body.onnx",))
    assert {name: opened.read(name) for name in files} == files
    assert {name: opened.read(name) for name in files} == files  # kept bytes are handed over once, then read again
    assert opened.unlisted() == []
    assert opened.manifest.model.labels == ("left", "right", "still")
    assert opened.manifest.gates[0].convs[0].in_size == (4, 8, 8)
    assert os.listdir(tmp_path / "new") == ["bundle"]


def test_files_may_be_given_as_paths(tmp_path):
    files = tiny_files()
    source = tmp_path / "body"
    source.write_bytes(files["body.onnx"])
    opened = write_bundle(tmp_path / "bundle", tiny_fields(), {**files, "body.onnx": source, "engines/x.plan": b"e"})
    assert opened.read("body.onnx") == files["body.onnx"]
    assert opened.read("engines/x.plan") == b"e"


def test_permissions_follow_the_umask(own_bundle, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    assert own_bundle.stat().st_mode == plain.stat().st_mode


def test_unlisted_files_are_told_and_never_read(own_bundle):
    (own_bundle / "notes.txt").write_text("x")
    (own_bundle / "engines").mkdir()
    (own_bundle / "engines" / "foreign.plan").write_bytes(b"x")
    opened = open_bundle(own_bundle)
    assert opened.unlisted() == ["engines/foreign.plan", "notes.txt"]
    with pytest.raises(InputError, match="lists no file 'notes.txt'"):
        opened.read("notes.txt")
    with pytest.raises(InputError, match="lists no file"):
        opened.read("../own/body.onnx")


# --- damage ---

@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "longer", "folder", "link out", "link in", "pipe"])
def test_damaged_file_is_named(own_bundle, tmp_path, name, damage):
    path = own_bundle / name
    data = path.read_bytes()
    path.unlink()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(data[:len(data) // 2])
    elif damage == "longer":
        path.write_bytes(data + b"}")
    elif damage == "folder":
        path.mkdir()
    elif damage == "link out":
        (tmp_path / "outside").write_bytes(data)
        path.symlink_to(tmp_path / "outside")
    elif damage == "link in":
        (own_bundle / "inside").write_bytes(data)
        path.symlink_to("inside")
    elif damage == "pipe":
        os.mkfifo(str(path))
    for verify in (True, False):
        assert ": {} ".format(name) in refusal(own_bundle, verify=verify).replace(name + ":", name + " ")


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_any_changed_byte_is_found(own_bundle, name):
    path = own_bundle / name
    data = bytearray(path.read_bytes())
    for at in (0, len(data) // 3, len(data) - 1):
        data[at] ^= 0x10
        path.write_bytes(bytes(data))
        assert "{} is damaged: its SHA-256".format(name) in refusal(own_bundle)
        with pytest.raises(InputError, match="is damaged"):  # opened unverified, the read finds it
            open_bundle(own_bundle, verify=False).read(name)
        data[at] ^= 0x10
    path.write_bytes(bytes(data))
    open_bundle(own_bundle)


@pytest.mark.parametrize("path, why", [
    ("absent", "does not exist"), ("own/body.onnx", "is a file, not a folder"), ("empty", "manifest.json is missing")])
def test_not_a_bundle_folder(own_bundle, tmp_path, path, why):
    (tmp_path / "empty").mkdir()
    assert why in refusal(tmp_path / path)


@pytest.mark.parametrize("name", [
    "../outside", "/etc/passwd", "engines/../../outside", "engines/a/b", "engines/", "engines/.hidden", "engines",
    "a\\b", "body.onnx/", "./body.onnx", "manifest.json", "notes.txt", "", "engines/a\n", "engines/caf\u00e9"])
def test_names_that_leave_the_folder_or_are_unknown(own_bundle, name):
    digest = hashlib.sha256(b"x").hexdigest()
    change_manifest(own_bundle, lambda tree: tree["files"].update({name: {"sha256": digest, "size": 1}}))
    assert "files names" in refusal(own_bundle)


def test_engines_behind_a_link(own_bundle, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.plan").write_bytes(b"x")
    (own_bundle / "engines").symlink_to(tmp_path / "elsewhere")
    entry = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
    change_manifest(own_bundle, lambda tree: tree["files"].update({"engines/a.plan": entry}))
    assert "engines/a.plan lies behind a symbolic link" in refusal(own_bundle)


# --- the manifest ---

@pytest.mark.parametrize("text, why", [
    (b"", "not JSON"), (b"[]", "not a bundle"), (b"{", "not JSON"), (b"\xff\xfe{}", "not JSON"),
    (b"[" * 100000, "nested too deeply"), (b'{"a":1,"a":2}', "stands there twice"), (b'{"a":NaN}', "not JSON"),
    (b'{"a":' + b"9" * 50000 + b"}", "50000 digits"), (b" " * (MAX_MANIFEST_BYTES + 1), "bytes long"),
    (b'{"format":"dance-bundle","version":2}', "version is 2"), (b'{"format":"other","version":1}', "not a bundle")])
def test_manifest_that_is_none(own_bundle, text, why):
    (own_bundle / "manifest.json").write_bytes(text)
    assert why in refusal(own_bundle)


@pytest.mark.parametrize("path, value, why", [
    (("gates", 0, "convs", 0, "kernel"), [3, 3], "gates[0].convs[0].kernel is [3, 3]"),
    (("gates", 0, "convs", 0, "kernel"), [3, 200, 3], "does not fit"),
    (("gates", 0, "convs", 0, "group"), 4, "divisor"),
    (("gates", 0, "convs", 0, "strides"), [1, 0, 1], "strides[1] is 0"),
    (("gates", 0, "convs", 0, "pads"), [1, 1, 1, 1, 1, -1], "pads[5] is -1"),
    (("gates", 0, "input"), [4, 4, 8, True], "gates[0].input[3] is True"),
    (("gates", 0, "input"), [65536, 4096, 4096, 4096], "numbers in one tensor"),
    (("gates",), [], "gates is []"),
    (("gates", 1, "name"), "gate.a", "stands there twice"),
    (("gates", 1, "name"), "\x1b[31mred", "printable"),
    (("model", "labels"), ["a", "a"], "stands there twice"),
    (("model", "trained"), 1, "expected true or false"),
    (("clip", "size"), [19, 16], "crop"),
    (("clip", "std"), [0.2, 0.2, 0.0], "clip.std[2]"),
    (("clip", "mean"), [0.2, 0.2, 1e999], "clip.mean[2]"),
    (("clip", "layout"), "NTHWC", "clip.layout"),
    (("budget", "default"), 0, "more than 0"),
    (("budget", "default"), 1.5, "budget.default is 1.5"),
    (("budget", "reached"), [[1.0]], "budget.reached[0]"),
    (("tools", "opset"), "17", "tools.opset"),
    (("files", "body.onnx", "sha256"), "A" * 64, "hexadecimal"),
    (("files", "body.onnx", "size"), 0, "size is 0"),
    (("version",), True, "version is True")])
def test_wrong_value_is_named(tree, path, value, why):
    changed = copy.deepcopy(tree)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError) as caught:
        manifest_from_tree(changed)
    assert why in str(caught.value)


def paths_in(tree, path=()):
    """Every path of keys and indices into a tree."""
    yield path
    if isinstance(tree, dict):
        for key in tree:
            yield from paths_in(tree[key], path + (key,))
    elif isinstance(tree, list):
        for index in range(len(tree)):
            yield from paths_in(tree[index], path + (index,))


PLACES = list(paths_in({**tiny_fields(), "format": "", "version": 1, "files": {name: {"sha256": "", "size": 1}
                                                                           for name in REQUIRED_FILES}}))[1:]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=8)


def replaced(tree, place, value):
    """A copy of the tree with another value at one place."""
    changed = copy.deepcopy(tree)
    inside = changed
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return changed


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_every_place_refuses_other_types(tree, place):
    here = tree
    for key in place:
        here = here[key]
    for value in (None, True, -1, 10 ** 19, 0.5, "x\n", {}, {"a": 1}, [None], [[]], [1] * 9):
        if type(value) is not type(here) and (type(here), type(value)) != (float, int):  # JSON has one kind of number
            with pytest.raises(InputError) as caught:
                manifest_from_tree(replaced(tree, place, value))
            assert "\n" not in str(caught.value)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=ANYTHING, how=st.sampled_from(["replace", "remove", "add"]))
def test_a_manifest_is_read_or_refused(tree, place, value, how):
    """Whatever stands wherever: a Manifest with the right types, or an InputError; never another exception."""
    changed = copy.deepcopy(tree)
    inside = changed
    for key in place[:-1]:
        inside = inside[key]
    if how == "remove":
        del inside[place[-1]]
    elif how == "replace" or not isinstance(inside, dict):
        inside[place[-1]] = value
    else:
        inside["surprise"] = value
    try:
        manifest = manifest_from_tree(changed)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert how != "add" or not isinstance(inside, dict) or "surprise" in changed["tools"]
    for gate in manifest.gates:
        assert all(type(extent) is int for extent in gate.input_size)
        assert all(conv.out_size for conv in gate.convs)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_as_a_manifest(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "bytes"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(data)
    refusal(folder)


def test_the_documented_example_is_a_manifest(tree):
    page = pathlib.Path(__file__).parents[1].joinpath("docs", "bundle.md").read_text(encoding="utf-8")
    example = json.loads(page.split("```json")[1].split("```")[0])
    assert set(example) == set(tree)
    assert manifest_from_tree({**example, "files": tree["files"]}).gates[0].convs[0].out_size == (16, 56, 56)


# --- writing ---

def test_replaces_a_bundle_and_leaves_nothing_beside(own_bundle):
    before = content(own_bundle)
    write_tiny_bundle(own_bundle, seed=7)
    assert content(own_bundle) != before
    open_bundle(own_bundle)
    assert os.listdir(own_bundle.parent) == ["own"]


@pytest.mark.parametrize("exchange", [True, False])
def test_swap_with_and_without_an_exchange(own_bundle, monkeypatch, exchange):
    if not exchange:  # a system whose C library has no renameat2
        monkeypatch.setattr(bundles, "_exchange", lambda first, second: False)
    test_replaces_a_bundle_and_leaves_nothing_beside(own_bundle)


def test_a_link_to_a_bundle_stays_a_link(own_bundle, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(own_bundle)
    write_tiny_bundle(link, seed=7)
    assert link.is_symlink()
    assert content(own_bundle)["body.onnx"] == tiny_files(7)["body.onnx"]


def test_the_old_bundle_stays_when_writing_fails(own_bundle, tmp_path):
    before = content(own_bundle)
    with pytest.raises(OperationError, match="could not be written"):
        write_bundle(own_bundle, tiny_fields(), {**tiny_files(), "body.onnx": tmp_path / "absent"})
    with pytest.raises(InputError, match="expected true or false"):
        write_bundle(own_bundle, {**tiny_fields(), "model": {"name": "x", "labels": ["a"], "trained": 3}}, tiny_files())
    assert content(own_bundle) == before
    assert os.listdir(tmp_path) == ["own"]


def test_the_old_bundle_stays_when_interrupted(own_bundle, monkeypatch):
    before = content(own_bundle)

    def interrupted(*_):
        raise KeyboardInterrupt

    for step in ("_fill", "_put_in_place"):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(bundles, step, interrupted)
            write_tiny_bundle(own_bundle, seed=7)
        assert content(own_bundle) == before
        assert os.listdir(own_bundle.parent) == ["own"]


def test_interrupted_between_the_two_steps_of_a_swap(own_bundle, monkeypatch):
    before = content(own_bundle)
    renames = []

    def rename(source, target, really=os.rename):
        renames.append((source, target))
        if len(renames) == 3:  # 1: straight onto the old one, refused; 2: the old one aside; 3: the new one in place
            raise KeyboardInterrupt
        really(source, target)

    monkeypatch.setattr(bundles, "_exchange", lambda first, second: False)
    monkeypatch.setattr(bundles.os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        write_tiny_bundle(own_bundle, seed=7)
    assert len(renames) == 4
    assert content(own_bundle) == before
    assert os.listdir(own_bundle.parent) == ["own"]


def test_refuses_to_replace_what_is_no_bundle(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name, why in (("home", "is not a bundle"), ("file", "is a file")):
        before = content(tmp_path)
        with pytest.raises(InputError, match=why):
            write_tiny_bundle(tmp_path / name)
        assert content(tmp_path) == before


def test_a_place_that_cannot_be_written_is_known_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written: .*file' is no folder"):
        check_replaceable(str(tmp_path / "file" / "below" / "bundle"), overwrite=True)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(InputError, match="cannot be written"):
        check_replaceable(str(tmp_path / "new" / "bundle"), overwrite=True)
    assert os.listdir(tmp_path) == ["file"]


def test_refuses_to_throw_away_files_of_others(own_bundle):
    (own_bundle / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="also holds 'notes.txt'"):
        write_tiny_bundle(own_bundle)
    with pytest.raises(InputError, match="holds a bundle already"):
        write_bundle(own_bundle, tiny_fields(), tiny_files(), overwrite=False)


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    write_tiny_bundle(tmp_path / "empty")
    open_bundle(tmp_path / "empty")


def test_a_disk_that_takes_nothing_is_one_line(tmp_path, monkeypatch):
    def full(path, *arguments):
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr("os.mkdir", full)
    with pytest.raises(OperationError, match="could not be written: No space left"):
        write_tiny_bundle(tmp_path / "bundle")
