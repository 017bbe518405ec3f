"""Readers of labelled videos: what they find, and what they say where something is wrong."""
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from dance_deploy.data import open_dataset, read_csv, read_folder, select_readable
from dance_deploy.data.encode import write_video

SHARED = Path(os.environ.get("DANCE_SHARED", Path(__file__).resolve().parents[2] / ".." / "shared"))


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory):
    pytest.importorskip("av")
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, [np.full((32, 32, 3), 9 * i, np.uint8) for i in range(6)])
    return path


@pytest.fixture
def folder(tmp_path, clip_file):
    """Two classes of five clips, with split files."""
    for name in ("run", "walk"):
        (tmp_path / name).mkdir()
        for i in range(5):
            shutil.copy(clip_file, tmp_path / name / f"{name} {i}.mp4")
    put(tmp_path / "splits" / "classes.txt", "0 run", "1 walk")
    put(tmp_path / "splits" / "train.txt",
        *(f"{n}/{n} {i}.mp4 {k}" for k, n in enumerate(("run", "walk")) for i in (0, 1, 2)))
    put(tmp_path / "splits" / "val.txt", "run/run 3.mp4 0")
    put(tmp_path / "splits" / "test.txt", "run/run 4.mp4 0", "", "walk/walk 4.mp4 1")
    return tmp_path


def put(path, *lines):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def names(part):
    return [Path(path).name for path, _ in part.videos]


def test_split_files(folder):
    splits = open_dataset(folder)
    assert splits.labels == ("run", "walk")
    assert names(splits.train) == ["run 0.mp4", "run 1.mp4", "run 2.mp4", "walk 0.mp4", "walk 1.mp4", "walk 2.mp4"]
    assert [label for _, label in splits.train.videos] == [0, 0, 0, 1, 1, 1]
    assert names(splits.val) == ["run 3.mp4"] and names(splits.test) == ["run 4.mp4", "walk 4.mp4"]
    assert splits.test.counts() == {"run": 1, "walk": 1}


def test_labels_may_be_left_out_and_classes_come_from_the_folders(folder):
    (folder / "splits" / "classes.txt").unlink()
    put(folder / "splits" / "train.txt", "run/run 0.mp4", "walk/walk 0.mp4")
    assert open_dataset(folder).train.videos == (
        (str(folder / "run/run 0.mp4"), 0), (str(folder / "walk/walk 0.mp4"), 1))


def test_order_of_classes_is_that_of_classes_txt(folder):
    put(folder / "splits" / "classes.txt", "1 run", "0 walk")
    for split in ("train", "val", "test"):
        put(folder / "splits" / f"{split}.txt")
    put(folder / "splits" / "train.txt", "run/run 0.mp4 1", "walk/walk 0.mp4 0")
    assert open_dataset(folder).labels == ("walk", "run")


@pytest.mark.parametrize("line, says", [
    ("jog/a.mp4 0", "unknown class 'jog'"), ("run/none.mp4 0", "no such video 'run/none.mp4'"),
    ("run/run 3.mp4 7", "label 7 is out of range"), ("run/run 3.mp4 -1", "label -1 is out of range"),
    ("run/run 3.mp4 1", "label 1 is class 'walk'"), ("run/run 0.mp4 0", "listed already"),
    ("run/../walk/walk 3.mp4 0", "no such video")])
def test_wrong_line_is_named(folder, line, says):
    path = folder / "splits" / "train.txt"
    put(path, "run/run 0.mp4 0", line, "walk/walk 0.mp4 1")
    text = refused(open_dataset, folder)
    assert says in text and f"{path}:2" in text


def test_a_clip_on_two_sides_is_refused(folder):
    put(folder / "splits" / "test.txt", "run/run 0.mp4 0", "walk/walk 4.mp4 1")
    text = refused(open_dataset, folder)
    assert "test.txt:1" in text and "train.txt:1" in text


@pytest.mark.parametrize("line", ["run/run 0.mp4 --5", "run/run 0.mp4 \u00b2"])
def test_a_label_that_is_no_number_is_part_of_the_name(folder, line):
    put(folder / "splits" / "train.txt", line)
    assert f"no such video '{line}'" in refused(open_dataset, folder)


def test_several_problems_are_counted(folder):
    put(folder / "splits" / "train.txt", "run/x 0", "run/y 0", "run/z 0")
    assert refused(open_dataset, folder).endswith("(and 2 more like it)")


@pytest.mark.parametrize("lines, says", [
    (["0 run", "2 walk"], "without a gap"), (["0 run", "0 walk"], "twice"), (["0 run", "1 run"], "twice"),
    (["run 0"], "expected '<label> <class>'"), (["\u00b2 run"], "expected '<label> <class>'"), ([], "without a gap"),
    (["0 run", "1 walk", "2 fly"], "no clip for class 'fly'")])
def test_wrong_classes_file(folder, lines, says):
    put(folder / "splits" / "classes.txt", *lines)
    assert says in refused(open_dataset, folder)


def test_missing_split_files(folder):
    (folder / "splits" / "val.txt").unlink()
    assert len(open_dataset(folder).val) == 0
    (folder / "splits" / "train.txt").unlink()
    assert "has no train.txt" in refused(open_dataset, folder)
    assert "no such folder" in refused(open_dataset, folder, split_dir=folder / "nowhere")


def test_class_without_training_clip(folder):
    put(folder / "splits" / "train.txt", "run/run 0.mp4 0")
    assert "no training clip for class 'walk'" in refused(open_dataset, folder)


def test_folds(folder):
    put(folder / "splits" / "loso" / "ann_train.txt", "run/run 0.mp4 0", "walk/walk 0.mp4 1")
    put(folder / "splits" / "loso" / "ann_test.txt", "run/run 1.mp4 0")
    splits = open_dataset(folder, split_dir=folder / "splits" / "loso", fold="ann")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (2, 0, 1)
    assert "bob_train.txt" in refused(open_dataset, folder, split_dir=folder / "splits" / "loso", fold="bob")


def test_without_split_files_the_split_is_by_clip_and_said(folder, caplog):
    shutil.rmtree(folder / "splits")
    (folder / "run" / "notes.txt").write_text("no video")
    (folder / ".cache").mkdir()
    with caplog.at_level(logging.WARNING):
        splits = open_dataset(folder)
    assert "no split files" in caplog.text and "6 to train, 2 to validate, 2 to test" in caplog.text
    assert splits.train.counts() == {"run": 3, "walk": 3} and splits.test.counts() == {"run": 1, "walk": 1}
    moved = folder.parent / (folder.name + "_moved")
    folder.rename(moved)
    again = open_dataset(moved)
    assert [names(p) for p in (again.train, again.val, again.test)] == [
        names(p) for p in (splits.train, splits.val, splits.test)]


def test_one_clip_and_empty_classes(folder):
    shutil.rmtree(folder / "splits")
    for i in range(1, 5):
        (folder / "run" / f"run {i}.mp4").unlink()
    assert "class 'run' has one clip" in refused(open_dataset, folder)
    (folder / "run" / "run 0.mp4").unlink()
    assert "no video in class folder 'run'" in refused(open_dataset, folder)


def test_split_folders(folder):
    shutil.rmtree(folder / "splits")
    for part, numbers in (("train", (0, 1, 2)), ("validation", (3,)), ("test", (4,))):
        for name in ("run", "walk"):
            (folder / part / name).mkdir(parents=True)
            for i in numbers:
                shutil.move(folder / name / f"{name} {i}.mp4", folder / part / name)
    for name in ("run", "walk"):
        (folder / name).rmdir()
    splits = open_dataset(folder)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (6, 2, 2)


def test_nothing_there(tmp_path):
    assert "no class folders" in refused(open_dataset, tmp_path)
    assert "no such file or folder" in refused(open_dataset, tmp_path / "nowhere")
    assert "folder to render into" in refused(open_dataset, "rendered")


def test_csv(folder):
    put(folder / "data.csv", "path,label,split,note", "run/run 0.mp4,run,train,x", "walk/walk 0.mp4,walk,training,",
        '"run/run 1.mp4",run,valid,', "walk/walk 1.mp4,walk,test,")
    splits = open_dataset(folder / "data.csv")
    assert splits.labels == ("run", "walk")
    assert [names(p) for p in (splits.train, splits.val, splits.test)] == [
        ["run 0.mp4", "walk 0.mp4"], ["run 1.mp4"], ["walk 1.mp4"]]
    assert Path(splits.train.videos[0][0]).is_file()


def test_csv_with_numbers_and_byte_order_mark(folder):
    lines = ["path,label"] + [f"run/run {i}.mp4,{n}" for i, n in enumerate((10, 10, 2, 2))]
    (folder / "data.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    assert open_dataset(folder / "data.csv").labels == ("2", "10")


@pytest.mark.parametrize("lines, says", [
    (["a,b", "x,y"], "expected column names"), ([], "expected column names"), (["path,label"], "lists no videos"),
    (["path,label", "run/run 0.mp4,"], ":2: path or label is empty"),
    (["path,label", "x.mp4,run"], ":2: no such video"),
    (["path,label,split", "run/run 0.mp4,run,dev"], ":2: unknown split 'dev'"),
    (["path,label,split", "run/run 0.mp4,run,train", "run/run 1.mp4,run,"], ":3: has no split"),
    (["path,label", "run/run 0.mp4,run", "run/run 0.mp4,walk"], ":3: "),
    (["path,label", "run/run 0.mp4,run", "walk/walk 0.mp4,walk", "walk/walk 1.mp4,walk"], "'run' has one clip")])
def test_wrong_csv(folder, lines, says):
    put(folder / "data.csv", *lines)
    assert says in refused(open_dataset, folder / "data.csv")


def test_not_a_csv(folder, clip_file):
    assert "is not a CSV file" in refused(read_csv, clip_file)


def test_unreadable_clips(folder, caplog):
    whole = (folder / "run" / "run 0.mp4").read_bytes()
    (folder / "run" / "run 0.mp4").write_bytes(whole[:len(whole) // 2])
    (folder / "walk" / "walk 4.mp4").write_bytes(b"nothing")
    text = refused(open_dataset, folder)
    assert "run 0.mp4" in text and "(and 1 more like it)" in text
    splits = open_dataset(folder, skip_unreadable=True)
    assert len(splits.train) == 5 and names(splits.test) == ["run 4.mp4"]
    assert "left out" in caplog.text
    for i in (1, 2):
        (folder / "run" / f"run {i}.mp4").write_bytes(b"nothing")
    assert "no readable training clip is left for class 'run'" in refused(open_dataset, folder, skip_unreadable=True)


def test_progress(folder):
    seen = []
    select_readable(read_folder(folder), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 9) for i in range(1, 10)]


def test_real_actions():
    folder = SHARED / "data" / "videos" / "train-ready"
    if not folder.is_dir():
        pytest.skip("../shared/data/videos/train-ready not present")
    splits = open_dataset(folder)
    assert splits.labels == ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2")
    assert splits.summary() == "10 classes; clips: train 50, val 10, test 30"
    assert all(set(part.counts().values()) == {n} for part, n in ((splits.train, 5), (splits.val, 1), (splits.test, 3)))
