"""HTML pages under test: read strictly, or opened in a headless Chromium as a reader would, saying what was rendered.

CHROMIUM names the program; else `chromium` on the PATH (Debian's package). Nothing of it may reach the network.
"""
import json
import os
import re
import shutil
import subprocess
import zlib
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
          "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
          "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=2000")
_MEASURE = """<script>
const plots = [...document.querySelectorAll('.plot')].map(p => {
  const area = p.querySelector('.area').getBoundingClientRect();
  const boxes = [...p.querySelectorAll('.x span')].filter(s => getComputedStyle(s).display != 'none')
    .map(s => s.getBoundingClientRect());
  const shapes = [...p.querySelectorAll('svg > *')].map(s => s.getBoundingClientRect());
  return {width: area.width, height: area.height, ticks: boxes.map(b => [b.left, b.right]),
          outside: shapes.filter(b => b.left < area.left - 8 || b.right > area.right + 8
                                   || b.top < area.top - 8 || b.bottom > area.bottom + 8).length,
          shapes: shapes.length}});
const text = [...document.querySelectorAll('h1, h2, h3, p, th, td, figcaption, .figure, .more')]
  .filter(e => e.offsetParent !== null && e.scrollWidth > e.clientWidth + 1 && !e.closest('.scroll')).length;
const out = document.createElement('pre');
out.id = 'measured';
out.textContent = JSON.stringify({width: innerWidth, content: document.documentElement.scrollWidth,
  plots: plots, overflowing: text, dark: matchMedia('(prefers-color-scheme: dark)').matches,
  ground: getComputedStyle(document.body).backgroundColor, color: getComputedStyle(document.body).color});
document.body.append(out);
</script>"""
_VOID = ("meta", "link")


class Reader(HTMLParser):
    """Collects what a page names, and fails where tags are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.tags = [], [], []

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        self.links += [value for key, value in attributes if key in ("src", "href", "data", "action", "srcset")]
        if name not in _VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        self.links += [value for key, value in attributes if key in ("src", "href")]

    def handle_endtag(self, name):
        assert self.open.pop() == name


def read(text):
    """The Reader of a page; fails where its tags are not closed."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def chromium():
    """The program's path; skips the test where there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no Chromium: install the package `chromium` or set CHROMIUM")
    return found


def _run(page, profile, *options):
    done = subprocess.run([chromium(), *_FLAGS, f"--user-data-dir={profile}", *options, Path(page).as_uri()],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    log = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, log[-2000:]
    # what the page itself complained of, a refused request included
    assert not re.findall(r".*:CONSOLE.*", log), log
    return done.stdout.decode("utf-8")


def dom(page, profile):
    """The page's HTML after Chromium built it."""
    return _run(page, profile, "--dump-dom")


def visible_text(html):
    """Text of an HTML document without its tags."""
    body = html[html.index("<body"):]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def measured(page, profile, width, *options):
    """What the page looks like at `width` CSS pixels: a dict of the script's findings.

    The page's own policy forbids scripts, so a copy without it is measured, in a frame of that width.
    """
    text = Path(page).read_text(encoding="utf-8")
    text, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert count == 1
    copy = Path(profile).parent / f"measured{width}.html"
    copy.write_text(text.replace("</body>", _MEASURE + "</body>"), encoding="utf-8")
    html = _run(copy, profile, f"--window-size={width},1000", "--dump-dom", *options)
    return json.loads(unescape(re.search(r'<pre id="measured">(.*?)</pre>', html, re.S).group(1)))


def screenshot(page, profile, target, width=1000, height=1400, *options):
    """uint8 [height, width, 3] of the page, drawn to the file `target`."""
    _run(page, profile, f"--window-size={width},{height}", f"--screenshot={target}", *options)
    return pixels_from_png(Path(target).read_bytes())


def pixels_from_png(data):
    """uint8 [height, width, 3] of an 8-bit RGB or RGBA PNG without interlacing, which is what Chromium writes."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    packed, at = b"", 8
    while at < len(data):
        length, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
            depth, color, interlaced = body[8], body[9], body[12]
            assert depth == 8 and color in (2, 6) and not interlaced
            channels = {2: 3, 6: 4}[color]
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(height, 1 + width * channels)
    image, above = np.zeros((height, width * channels), dtype=np.uint8), np.zeros(width * channels, dtype=np.uint8)
    for i, row in enumerate(rows):
        above = image[i] = _unfiltered(int(row[0]), row[1:], above, channels)
    return image.reshape(height, width, channels)[:, :, :3]


def _unfiltered(kind, row, above, channels):
    """One line of a PNG, its filter undone (PNG specification, 9.2)."""
    if kind == 0:
        return row
    if kind == 2:
        return row + above
    out = bytearray(row.tobytes())
    up = above.tobytes()
    for i in range(len(out)):
        left = out[i - channels] if i >= channels else 0
        corner = up[i - channels] if i >= channels else 0
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up[i]) // 2
        else:
            p = left + up[i] - corner
            guess = min((abs(p - left), 0, left), (abs(p - up[i]), 1, up[i]), (abs(p - corner), 2, corner))[2]
        out[i] = (out[i] + guess) & 255
    return np.frombuffer(bytes(out), dtype=np.uint8)
