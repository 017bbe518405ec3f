"""Windows by their properties, and the numbers of a clip."""
import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dance_deploy.errors import InputError
from dance_deploy.geometry import ClipSpec
from dance_deploy.video import Frame, center_crop, normalize, windows


def make_spec(frames=4, stride=2, resize=(6, 8), size=(4, 6)):
    return ClipSpec(frames, stride, resize, size, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def numbered(count, size=(6, 8), fps=10.0):
    """Frames whose pixels all hold the frame's number, modulo 251."""
    for i in range(count):
        yield Frame(np.full(size + (3,), i % 251, np.uint8), i, i / fps)


def numbers(window):
    return window.frames[:, 0, 0, 0].astype(int)


@settings(deadline=None, max_examples=200)
@given(count=st.integers(1, 120), frames=st.integers(1, 8), stride=st.integers(1, 5),
       hop=st.one_of(st.none(), st.integers(1, 30)))
def test_windows_cover_every_frame(count, frames, stride, hop):
    spec = make_spec(frames, stride)
    if count < spec.span:
        with pytest.raises(InputError):
            list(windows(numbered(count), spec, hop))
        return
    found = list(windows(numbered(count), spec, hop))
    starts = [int(numbers(w)[0]) for w in found]
    for index, window in enumerate(found):
        assert window.index == index
        assert window.frames.shape == (frames, *spec.size, 3) and window.frames.dtype == np.uint8
        assert numbers(window).tolist() == list(range(starts[index], starts[index] + spec.span, stride))
        assert window.start_s == starts[index] / 10.0
    step = hop or frames * stride
    regular = list(range(0, count - spec.span + 1, step))
    assert starts[:len(regular)] == regular
    covered = regular[-1] + frames * stride
    assert starts[len(regular):] == ([count - spec.span] if covered < count else [])
    if hop is None:  # no two windows share a frame but the last, and no source frame is left out
        assert all(b - a == frames * stride for a, b in itertools.pairwise(starts[:len(regular)]))
        assert set(range(count)) <= {f for s in starts for f in range(s, s + frames * stride)}


def test_end_includes_the_last_frame():
    found = list(windows(numbered(16), make_spec(4, 2)))
    assert [(w.start_s, pytest.approx(w.end_s)) for w in found] == [(0.0, 0.7), (0.8, 1.5)]


def test_short_video_is_refused_or_padded():
    spec = make_spec(4, 2)
    with pytest.raises(InputError) as error:
        list(windows(numbered(6), spec, name="a.mp4"))
    assert str(error.value) == "a.mp4: has 6 frames, a clip needs 7; use --pad to repeat the last frame"
    (window,) = windows(numbered(6), spec, pad=True)
    assert numbers(window).tolist() == [0, 2, 4, 5]
    assert window.end_s == pytest.approx(0.6)
    (window,) = windows(numbered(1), spec, pad=True)
    assert numbers(window).tolist() == [0, 0, 0, 0]


def test_no_frames_and_wrong_hop_are_refused():
    with pytest.raises(InputError, match="has no frames"):
        list(windows(iter(()), make_spec(), pad=True))
    with pytest.raises(InputError, match="hop"):
        list(windows(numbered(9), make_spec(), hop=0))


def test_window_comes_with_its_last_frame_and_memory_stays_bounded():
    spec = make_spec(8, 3, (64, 64), (56, 56))
    taken = 0

    def endless():
        nonlocal taken
        for taken in itertools.count(1):
            yield Frame(np.full((64, 64, 3), taken % 251, np.uint8), taken - 1, taken / 25.0)

    stream = windows(endless(), spec)
    next(stream)
    assert taken == spec.span
    next(stream)
    tracemalloc.start()
    for _ in range(60):
        next(stream)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # what is kept, the window that goes out and the one that the caller holds, one source frame; and as much again
    assert peak < 2 * (spec.span + 2 * spec.frames + 1) * 64 * 64 * 3


def test_frames_of_changing_size_are_cropped_and_too_small_ones_refused():
    sizes = [(6, 8), (4, 6), (9, 7), (5, 6)]
    mixed = [Frame(np.zeros((h, w, 3), np.uint8), i, i / 10) for i, (h, w) in enumerate(sizes)]
    (window,) = windows(iter(mixed), make_spec(4, 1))
    assert window.frames.shape == (4, 4, 6, 3)
    with pytest.raises(InputError, match="3x6"):
        list(windows(iter([Frame(np.zeros((3, 6, 3), np.uint8), 0, 0.0)]), make_spec(1, 1)))


def test_center_crop_takes_the_middle_and_copies():
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    crop = center_crop(image, (4, 6))
    assert np.array_equal(crop, image[1:5, 1:7]) and not np.shares_memory(crop, image)


def test_normalize_against_the_formula():
    spec = make_spec(3, 1, (6, 8), (4, 6))
    frames = np.random.default_rng(1).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    clip = normalize(frames, spec)
    assert clip.shape == spec.shape and clip.dtype == np.float32 and clip.flags.c_contiguous
    exact = (frames.astype(np.float64) / 255 - spec.mean) / spec.std
    # three float32 roundings: of scale times value, of the offset, of their sum
    size = (frames / 255 + np.array(spec.mean)) / spec.std
    assert np.all(np.abs(clip[0].transpose(1, 2, 3, 0) - exact) <= 2 * np.finfo(np.float32).eps * size)


@pytest.mark.parametrize("bad", [np.zeros((2, 4, 6, 3), np.uint8), np.zeros((3, 4, 6, 3), np.float32),
                                 np.zeros((3, 6, 4, 3), np.uint8)])
def test_normalize_refuses_other_shapes(bad):
    with pytest.raises(InputError, match=r"expected uint8 \[3, 4, 6, 3\]"):
        normalize(bad, make_spec(3, 1))
