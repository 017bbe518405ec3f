"""Split files and lists of public data sets, in the form in which they are published."""
import numpy as np
import pytest
from refusals import refused

from dance_deploy.data import open_dataset, read_csv, read_folder


def put(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def names(part):
    return [(path.rsplit("/", 1)[-1], label) for path, label in part.videos]


@pytest.fixture
def ucf(tmp_path):
    """Two of UCF101's classes; its lists come in a folder of their own."""
    touch(tmp_path / "UCF-101", *(f"{c}/v_{c}_g{g:02d}_c01.avi" for c in ("Archery", "Basketball") for g in (1, 8, 9)))
    lists = tmp_path / "ucfTrainTestlist"
    put(lists / "classInd.txt", "1 Archery", "2 Basketball")
    put(lists / "trainlist01.txt", *(f"{c}/v_{c}_g{g:02d}_c01.avi {k}\r" for k, c in ((1, "Archery"), (2, "Basketball"))
                                     for g in (8, 9)))
    put(lists / "testlist01.txt", "Archery/v_Archery_g01_c01.avi", "Basketball/v_Basketball_g01_c01.avi")
    put(lists / "trainlist02.txt", "Archery/v_Archery_g01_c01.avi 1", "Basketball/v_Basketball_g01_c01.avi 2")
    put(lists / "testlist02.txt", "Archery/v_Archery_g08_c01.avi")
    return tmp_path / "UCF-101", lists


def test_ucf101(ucf):
    splits = read_folder(ucf[0], split_dir=ucf[1])
    assert splits.labels == ("Archery", "Basketball") and len(splits.train) == 4 and not len(splits.val)
    assert names(splits.test) == [("v_Archery_g01_c01.avi", 0), ("v_Basketball_g01_c01.avi", 1)]
    assert len(read_folder(ucf[0], split_dir=ucf[1], fold="2").train) == 2
    assert "--fold chooses one of 01, 02" in refused(read_folder, *ucf[:1], split_dir=ucf[1], fold="03")


@pytest.mark.parametrize("line,says", [
    ("Chess/v_Chess_g08_c01.avi 1", "trainlist01.txt:1: unknown class 'Chess'"),
    ("Archery/v_Archery_g08_c01.avi 2", "label 2 is not that of class 'Archery'"),
    ("Archery/v_Archery_g08_c01.avi 0", "counts from 1"), ("Archery/absent.avi 1", "no such video")])
def test_ucf101_wrong_lines(ucf, line, says):
    put(ucf[1] / "trainlist01.txt", line)
    assert says in refused(read_folder, ucf[0], split_dir=ucf[1])


def test_hmdb51(tmp_path):
    for c in ("brush_hair", "cartwheel"):
        touch(tmp_path / "hmdb51", *(f"{c}/{c}_u_nm_np1_ba_goo_{i}.avi" for i in range(4)))
        for split, parts in ((1, (1, 1, 2, 0)), (2, (2, 1, 1, 0))):
            put(tmp_path / "lists" / f"{c}_test_split{split}.txt",
                *(f"{c}_u_nm_np1_ba_goo_{i}.avi {part} " for i, part in enumerate(parts)))
    splits = read_folder(tmp_path / "hmdb51", split_dir=tmp_path / "lists")
    assert splits.labels == ("brush_hair", "cartwheel") and len(splits.train) == 4
    assert names(splits.test) == [("brush_hair_u_nm_np1_ba_goo_2.avi", 0), ("cartwheel_u_nm_np1_ba_goo_2.avi", 1)]
    second = read_folder(tmp_path / "hmdb51", split_dir=tmp_path / "lists", fold="2")
    assert names(second.test)[0] == ("brush_hair_u_nm_np1_ba_goo_0.avi", 0)
    assert "--fold chooses one of 1, 2" in refused(read_folder, tmp_path / "hmdb51", split_dir=tmp_path / "lists",
                                                   fold="4")
    put(tmp_path / "lists" / "cartwheel_test_split1.txt", "cartwheel_u_nm_np1_ba_goo_0.avi 3")
    assert "cartwheel_test_split1.txt:1" in refused(read_folder, tmp_path / "hmdb51", split_dir=tmp_path / "lists")


@pytest.fixture
def kinetics(tmp_path):
    """Lists of both generations, clips in the layouts that downloaders leave."""
    put(tmp_path / "train.csv", "label,youtube_id,time_start,time_end,split,is_cc",
        "abseiling,0347ZoDXyP0,95,105,train,0", '"shaking hands",-4wsuPCjDBc,5.0,15.0,train,0')
    put(tmp_path / "validate.csv", "label,youtube_id,time_start,time_end,split", "abseiling,3caPS4FHFF8,36,46,validate",
        "shaking hands,absent_abcd,1,11,validate")
    touch(tmp_path, "train/abseiling/0347ZoDXyP0_000095_000105.mp4", "shaking_hands/-4wsuPCjDBc_000005_000015.mp4",
          "validate/3caPS4FHFF8_000036_000046.mp4")
    return tmp_path


def test_kinetics(kinetics, caplog):
    said = refused(read_folder, kinetics)
    assert "validate.csv:3" in said and "absent_abcd_000001_000011.mp4" in said and "--skip-unreadable" in said
    splits = read_folder(kinetics, skip_missing=True)
    assert splits.labels == ("abseiling", "shaking hands")
    assert "left out: " in caplog.text and "absent_abcd_000001_000011.mp4" in caplog.text
    assert names(splits.train) == [("0347ZoDXyP0_000095_000105.mp4", 0), ("-4wsuPCjDBc_000005_000015.mp4", 1)]
    assert names(splits.val) == [("3caPS4FHFF8_000036_000046.mp4", 0)]
    assert len(read_csv(kinetics / "train.csv").train) == 2


def test_kinetics_lists_in_a_folder_of_their_own(kinetics):
    lists = kinetics / "annotations"
    lists.mkdir()
    for name in ("train.csv", "validate.csv"):
        (kinetics / name).rename(lists / name)
    splits = read_folder(kinetics, split_dir=lists, skip_missing=True)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [2, 1, 0]
    said = refused(read_folder, kinetics, split_dir=lists)
    assert "annotations/validate.csv:3" in said and f"in {kinetics} or" in said
    assert "has no folds" in refused(read_folder, kinetics, split_dir=lists, fold="2", skip_missing=True)


def test_of_many_clips_that_are_gone_a_few_are_named(kinetics, caplog):
    put(kinetics / "validate.csv", "label,youtube_id,time_start,time_end",
        *(f"abseiling,gone{i},1,2" for i in range(9)))
    read_folder(kinetics, skip_missing=True)
    assert len(caplog.records) == 6 and "gone4" in caplog.text and "9 clips in all" in caplog.text


@pytest.mark.parametrize("choice", [{"fold": "2"}, {"split_dir": "lists"}])
@pytest.mark.parametrize("source", ["train.csv", "rendered"])
def test_split_files_are_of_folders_alone(kinetics, choice, source):
    said = refused(open_dataset, source if source == "rendered" else kinetics / source, render_dir=kinetics, **choice)
    assert "--split-dir and --fold choose the split files of" in said


@pytest.mark.parametrize("row,says", [
    ("abseiling,x,soon,105,train", "train.csv:2: time_start"), (",x,1,2,train", "expected a label"),
    ("abseiling,x,1,2,later", "expected a label")])
def test_kinetics_wrong_rows(kinetics, row, says):
    put(kinetics / "train.csv", "label,youtube_id,time_start,time_end,split", row)
    assert says in refused(read_csv, kinetics / "train.csv")


def test_a_published_list_of_readable_clips_opens(tmp_path):
    pytest.importorskip("av")
    from dance_deploy.data.encode import write_video
    put(tmp_path / "lists" / "classInd.txt", "1 Archery")
    put(tmp_path / "lists" / "trainlist01.txt", "Archery/a.avi 1")
    put(tmp_path / "lists" / "testlist01.txt", "Archery/b.avi")
    (tmp_path / "Archery").mkdir()
    for name in "ab":
        write_video(tmp_path / "Archery" / f"{name}.avi", [np.full((32, 32, 3), 9 * i, np.uint8) for i in range(6)])
    assert "1 classes" in open_dataset(tmp_path, split_dir=tmp_path / "lists").summary()
