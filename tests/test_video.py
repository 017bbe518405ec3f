"""Decoding: files made here, and, where they are present, the collection of odd and broken files."""
import csv
import gc
import itertools
import os
import re
import threading
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from dance_deploy import video
from dance_deploy.data.encode import write_video
from dance_deploy.errors import InputError

av = pytest.importorskip("av", reason="PyAV makes the files that these tests read")

SHARED = Path(os.environ.get("DANCE_SHARED", Path(__file__).resolve().parents[1] / ".." / "shared"))
ODD = SHARED / "data" / "videos" / "odd"


@pytest.fixture(params=video.DECODERS)
def decoder(request):
    pytest.importorskip({"pyav": "av", "opencv": "cv2"}[request.param])
    return request.param


def picture(number, size=(48, 64)):
    """A smooth picture, so that compression changes little; its brightness is its number."""
    ramp = np.linspace(0, 60, size[1])[None, :, None] + np.linspace(0, 30, size[0])[:, None, None]
    return np.broadcast_to(ramp + 3 * number, (*size, 3)).astype(np.uint8)


def write(path, count=40, size=(48, 64)):
    write_video(path, (picture(i, size) for i in range(count)), fps=25)
    return path


def read(path, decoder, **options):
    return list(video.frames(path, decoder=decoder, **options))


# ---- files made here

@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_round_trip(tmp_path, decoder, suffix):
    found = read(write(tmp_path / f"a{suffix}"), decoder)
    assert [f.index for f in found] == list(range(40))
    assert [f.time_s for f in found] == pytest.approx([i / 25 for i in range(40)])
    for frame in found:
        assert frame.image.dtype == np.uint8 and frame.image.shape == (48, 64, 3) and frame.image.flags.c_contiguous
    brightness = np.array([f.image.mean() for f in found])
    wanted = np.array([picture(i).mean() for i in range(40)])
    # the pictures are 3 levels apart: each is nearest to its own number
    assert np.array_equal(np.abs(brightness[:, None] - wanted).argmin(axis=1), np.arange(40))


def test_colours_are_rgb(tmp_path, decoder):
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = 200
    write_video(tmp_path / "red.mp4", [image] * 3)
    red, green, blue = read(tmp_path / "red.mp4", decoder)[0].image.reshape(-1, 3).mean(axis=0)
    assert red > 150 and max(green, blue) < 50


def test_resize_averages(tmp_path, decoder):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 240  # picking pixels would give 0 or 240; averaging gives 120
    write_video(tmp_path / "a.mkv", [stripes] * 2)
    small = read(tmp_path / "a.mkv", decoder, resize=(16, 20))[0].image
    assert small.shape == (16, 20, 3)
    full = read(tmp_path / "a.mkv", decoder)[0].image
    assert abs(small.mean() - full.mean()) < 2 and small.std() < full.std() / 2
    assert read(tmp_path / "a.mkv", decoder, resize=(100, 30))[0].image.shape == (100, 30, 3)


def test_decoders_agree(tmp_path):
    pytest.importorskip("cv2")
    path = write(tmp_path / "a.mp4", 5)
    for resize in (None, (32, 40), (90, 31)):
        one, other = (np.stack([f.image for f in read(path, d, resize=resize)]).astype(int) for d in video.DECODERS)
        assert np.abs(one - other).mean() < 2


def test_probe(tmp_path, decoder):
    info = video.probe(write(tmp_path / "a.mp4"), decoder=decoder)
    assert (info.width, info.height, info.frames) == (64, 48, 40)
    assert info.fps == pytest.approx(25) and info.duration_s == pytest.approx(1.6)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
@pytest.mark.parametrize("share", [0.15, 0.5, 0.8])
def test_cut_file_is_refused(tmp_path, suffix, share):
    whole = write(tmp_path / f"a{suffix}").read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[:int(share * len(whole))])
    delivered = 0
    with pytest.raises(InputError) as error:
        for _ in video.frames(cut, decoder="pyav"):
            delivered += 1
    assert delivered < 40 and "\n" not in str(error.value)
    if delivered:
        assert f"{delivered} frame" in str(error.value)


def test_damaged_picture_is_refused_where_it_stands(tmp_path):
    """FFmpeg hides a damaged picture and goes on to the end: only its flag tells."""
    data = bytearray(write(tmp_path / "a.avi").read_bytes())
    packets = list(re.finditer(b"00dc", data[:data.index(b"idx1")]))
    start = packets[20].end() + 4
    data[start + 20:start + 60] = bytes(range(40))
    (tmp_path / "a.avi").write_bytes(data)
    delivered = []
    with pytest.raises(InputError, match="damaged"):
        delivered.extend(frame.index for frame in video.frames(tmp_path / "a.avi", decoder="pyav"))
    assert delivered == list(range(len(delivered))) and len(delivered) <= 21
    with av.open(str(tmp_path / "a.avi")) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 39


def test_any_cut_or_overwritten_byte_gives_frames_or_one_line(tmp_path, decoder):
    rng = np.random.default_rng(3)
    for suffix in (".mp4", ".avi", ".mkv"):
        whole = np.frombuffer(write(tmp_path / f"a{suffix}", 12).read_bytes(), np.uint8)
        for trial in range(12):
            data = whole.copy()
            place = rng.integers(len(data), size=int(rng.integers(1, 40)))
            data[place] = rng.integers(0, 256, len(place), dtype=np.uint8)
            path = tmp_path / f"b{suffix}"
            path.write_bytes(data[:rng.integers(1, len(data) + 1)].tobytes() if trial % 2 else data.tobytes())
            try:
                for frame in itertools.islice(video.frames(path, decoder=decoder, resize=(8, 8)), 200):
                    assert frame.image.shape == (8, 8, 3)
            except InputError as error:
                assert "\n" not in str(error)


def mux(path, *, first=0, sound_s=0.0):
    """50 frames that begin at frame number `first` of the clock, with a sound track of its own length."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=48000) if sound_s else None
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + first, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for number in range(int(sound_s * 48000 / 1024)):
            samples = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            samples.rate, samples.pts, samples.time_base = 48000, number * 1024, Fraction(1, 48000)
            container.mux(sound.encode(samples))
        if sound:
            container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize("options", [{"first": 50}, {"sound_s": 6.0}, {"sound_s": 0.5}, {"first": 25, "sound_s": 4.0}])
def test_late_start_and_long_sound_are_no_damage(tmp_path, decoder, name, options):
    found = read(mux(tmp_path / name, **options), decoder)
    assert len(found) == 50 and found[0].time_s == 0 and found[-1].time_s == pytest.approx(49 / 25)


def test_file_names(tmp_path, decoder):
    source = write(tmp_path / "plain.mp4", 3)
    for name in ("with space & ünï 歩く.mp4", "no_extension", "%03d.mp4", "a|b,c.mp4", "concat:x.mp4", "-dash.mp4",
                 "line\nbreak.mp4"):
        (tmp_path / name).write_bytes(source.read_bytes())
        assert len(read(tmp_path / name, decoder)) == 3
    broken = tmp_path / "bro\nken.mp4"
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError) as error:
        read(broken, decoder)
    assert "\n" not in str(error.value)


def test_relative_name_that_looks_like_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.mp4", 3).rename(tmp_path / "concat:a.mp4")
    assert len(read("concat:a.mp4", "pyav")) == 3


def test_playlist_cannot_fetch(tmp_path):
    """A playlist under a video's name must not make the decoder open the network."""
    lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", "http://127.0.0.1:9/x.ts", "#EXT-X-ENDLIST", "")
    (tmp_path / "a.mp4").write_text("\n".join(lines))
    with pytest.raises(InputError):
        read(tmp_path / "a.mp4", "pyav")


def open_files():
    return [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_file_is_closed_when_the_iterator_is_dropped(tmp_path, decoder):
    path = str(write(tmp_path / "a.mp4").resolve())
    iterator = video.frames(path, decoder=decoder)
    next(iterator)
    assert path in open_files()
    del iterator
    gc.collect()
    assert path not in open_files()
    read(path, decoder)
    video.probe(path, decoder=decoder)
    assert path not in open_files()


def resident_bytes():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_does_not_grow_with_length(tmp_path, decoder):
    path = write(tmp_path / "long.mp4", 1500)
    resize = (256, 256)
    seen = {}
    for frame in video.frames(path, resize=resize, decoder=decoder):
        if frame.index in (300, 1499):
            seen[frame.index] = resident_bytes()
    # 1,200 frames lie between; a decoder that kept one in twenty would show
    assert seen[1499] - seen[300] < 60 * resize[0] * resize[1] * 3


def test_stream_by_http_is_read_without_its_length(tmp_path):
    write(tmp_path / "a.mkv", 10)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            found = read(f"http://127.0.0.1:{server.server_port}/a.mkv", "pyav")
        finally:
            server.shutdown()
            thread.join()
    assert len(found) == 10


# ---- the collection

def odd(kind):
    """The manifest's rows of one folder; one row that skips where the collection is absent."""
    if not (ODD / "manifest.csv").is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="../shared/data/videos/odd not present"))]
    with open(ODD / "manifest.csv", encoding="utf-8", newline="") as stream:
        return [pytest.param(row, id=row["path"].partition("/")[2]) for row in csv.DictReader(stream)
                if row["path"].startswith(kind)]


# what the decoders of these tests do otherwise than the manifest, which counts the first video stream by FFmpeg
OTHER_COUNTS = {("pyav", "valid/nasa_13013.mp4"): 390}  # the default video stream is not the first
NO_DECODER = {("opencv", "valid/av1_video.mkv")}  # OpenCV's wheel has no AV1 decoder in software


@pytest.mark.parametrize("row", odd("valid"))
def test_every_valid_file_is_read(row, decoder):
    path = row["path"]
    if (decoder, path) in NO_DECODER:
        try:
            count = len(read(ODD / path, decoder))
        except InputError as error:
            assert "decoder" in str(error)
            return
    else:
        times, shapes = [], []
        for frame in video.frames(ODD / path, decoder=decoder):
            times.append(frame.time_s)
            shapes.append(frame.image.shape)
        count = len(times)
        assert times[0] == 0 and all(a <= b for a, b in itertools.pairwise(times))
        assert all(s[2] == 3 for s in shapes)
        info = video.probe(ODD / path, decoder=decoder)
        assert (info.height, info.width, 3) == shapes[0]
    if decoder == "pyav" and not hasattr(av.container.streams.StreamContainer, "best"):
        return  # an old PyAV: FFmpeg's choice of stream is not offered
    assert count == OTHER_COUNTS.get((decoder, path), int(row["decoded_frames"]))


@pytest.mark.parametrize("row", odd("broken"))
def test_every_broken_file_is_refused(row, decoder, capfd):
    path = ODD / row["path"]
    count = 0
    try:
        for _ in video.frames(path, decoder=decoder):
            count += 1
    except InputError as error:
        assert "\n" not in str(error) and path.name in str(error)
        if count:
            assert f" {count} frame" in str(error)
    else:
        assert row["path"] == "broken/jpeg_named.mp4" and count == 1  # a picture is one frame: shorter than any clip
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name, shape", [("nasa_13013_rotated.mp4", (480, 270)), ("video_90.mov", (568, 320))])
def test_rotation_is_applied_the_same_way_by_both(name, shape):
    path = ODD / "valid" / name
    if not path.is_file():
        pytest.skip("../shared/data/videos/odd not present")
    pytest.importorskip("cv2")
    for resize in (None, (60, 40)):
        one, other = (next(video.frames(path, resize=resize, decoder=d)).image.astype(int) for d in video.DECODERS)
        assert one.shape[:2] == (resize or shape)
        assert np.abs(one - other).mean() < 4 < np.abs(one - other[::-1, ::-1]).mean()
