"""Plots as SVG that stretches with the page while its labels, which are HTML, keep their size.

Coordinates inside a plot: x from 0 to WIDTH, y from 0 (top) to its height in pixels; lines keep their width because the
style sheet says `vector-effect: non-scaling-stroke`, and a dot is a line of no length with round ends.
"""
import math
from typing import NamedTuple, Tuple

from dance_deploy.report.page import tag

WIDTH = 1000.0
# a mark narrower than this would not be seen
_LEAST_WIDTH = 1.5
_MOST_MARKS = 40


class Scale(NamedTuple):
    """low, high: values at the ends; ticks: round values between them."""

    low: float
    high: float
    ticks: Tuple[float, ...]

    def share(self, value):
        """Where `value` lies, 0 at the low end, 1 at the high end."""
        return (value - self.low) / (self.high - self.low)


def scale(low, high, wanted=5, tight=False):
    """A Scale over [low, high] with about `wanted` round ticks; its ends are ticks too unless `tight`."""
    if not high > low:
        low, high = (low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0))
    step = _round_step((high - low) / wanted)
    first, last = (math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)) if tight else (
        math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9))
    ticks = tuple(step * i for i in range(first, last + 1))
    return Scale(low, high, ticks) if tight or len(ticks) < 2 else Scale(ticks[0], ticks[-1], ticks)


def _round_step(step):
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1.0 - 1e-9))


def tick_texts(ticks):
    """The ticks' labels with as many decimals as tell them apart."""
    if len(ticks) < 2:
        return ["{:.4g}".format(tick) for tick in ticks]
    decimals = max(0, -int(math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)))
    return ["{:.{}f}".format(tick + 0.0, decimals) for tick in ticks]


class Plot(object):
    """Collects shapes over two Scales; html() is the finished plot."""

    def __init__(self, x, y, height=220):
        """x, y: Scales; height: pixels. Without y there are no labels at the left."""
        self._x, self._y, self._height = x, y, height
        self._shapes, self._labels = [], []

    def curve(self, points, class_="curve"):
        """A line through [(x, y)]."""
        self._shapes.append(tag("path", d=self._path(points), class_=class_))

    def area(self, points, low, high):
        """What lies between the lines (x, low) and (x, high); three equally long lists."""
        outline = list(zip(points, high)) + list(zip(reversed(points), reversed(low)))
        self._shapes.append(tag("path", d=self._path(outline) + "Z", class_="spread"))

    def strip(self, start, end, class_, title=None, top=None, bottom=None):
        """A rectangle from x `start` to `end`, over the whole height or from y `bottom` to `top`."""
        left, right = self._left(start), self._left(end)
        high = 0.0 if top is None else self._top(top)
        low = self._height if bottom is None else self._top(bottom)
        self._shapes.append(tag("rect", tag("title", title) if title else None, x=_number(left), y=_number(high),
                                width=_number(max(right - left, _LEAST_WIDTH)), height=_number(low - high),
                                class_=class_))

    def dot(self, x, y, class_, title=None):
        """A round mark at (x, y)."""
        self._shapes.append(tag("path", tag("title", title) if title else None, class_=class_,
                                d="M{} {}h0".format(_number(self._left(x)), _number(self._top(y)))))

    def label(self, x, text, class_):
        """Text at the top, centred over x."""
        self._labels.append((x, text, class_))

    def html(self, says, unit=None, x_name=None, x_texts=None, y_texts=None):
        """The plot as Markup. says: what it shows, for those who do not see it; unit: above the y axis; x_name: below
        the x axis."""
        many = " many" if len(self._x.ticks) > 5 else ""
        marks = [tag("span", text, class_="mark {}{}".format(class_, " many" if len(self._labels) > 8 else ""),
                     style="left:{:.2f}%".format(100.0 * self._x.share(x))) for x, text, class_ in self._labels]
        across = [tag("path", class_="grid", d="M0 {0}H{1}".format(_number(self._top(tick)), _number(WIDTH)))
                  for tick in self._y.ticks]
        svg = tag("svg", across, self._shapes, viewBox="0 0 {:g} {:g}".format(WIDTH, self._height),
                  preserveAspectRatio="none", aria_hidden="true", focusable="false")
        return tag(
            "div", tag("div", unit, class_="unit", aria_hidden="true") if unit else None,
            tag("div", [tag("span", text, style="bottom:{:.2f}%".format(100.0 * self._y.share(tick)))
                        for tick, text in zip(self._y.ticks, y_texts or tick_texts(self._y.ticks))], class_="y",
                aria_hidden="true"),
            tag("div", svg, marks if len(marks) <= _MOST_MARKS else None, class_="area",
                style="height:{:g}px".format(self._height)),
            tag("div", [tag("span", text, style="left:{:.2f}%".format(100.0 * self._x.share(tick)))
                        for tick, text in zip(self._x.ticks, x_texts or tick_texts(self._x.ticks))],
                class_="x" + many, aria_hidden="true"),
            tag("div", x_name, class_="name", aria_hidden="true") if x_name else None,
            class_="plot", role="img", aria_label=says)

    def _path(self, points):
        return "M" + "L".join("{} {}".format(_number(self._left(x)), _number(self._top(y))) for x, y in points)

    def _left(self, x):
        return WIDTH * self._x.share(x)

    def _top(self, y):
        return self._height * (1.0 - self._y.share(y))


def _number(value):
    """Short: a page may hold tens of thousands of them."""
    return "{:.1f}".format(value).rstrip("0").rstrip(".") or "0"
