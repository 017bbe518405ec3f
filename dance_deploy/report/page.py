"""One HTML page that needs nothing but itself: no script, no network; light and dark, wide and narrow.

Runs where the reports are wanted, on the board too: Python 3.6 syntax, standard library only.
"""
from html import escape

from dance_deploy import __version__
from dance_deploy.errors import InputError
from dance_deploy.files import whole_file

# the browser itself refuses whatever is not in the page
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

# Colours: Okabe and Ito's, which people tell apart who see few colours; on dark ground their lighter ones.
_STYLE = """
:root { --ground: #ffffff; --panel: #f5f6f8; --line: #d5d9df; --text: #1b1f24; --faint: #57606a;
  --idle: #6e7781; --a: #0072b2; --b: #c2410c; --run: #0072b2; --good: #00704e; --bad: #b3261e; --doubt: #8a5a00;
  --gap: #b3261e; --heat: 0, 114, 178 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --panel: #1d2127; --line: #3a414a; --text: #e8ebef; --faint: #a5afba;
    --idle: #9aa4af; --a: #56b4e9; --b: #f0a13c; --run: #56b4e9; --good: #4cc38a; --bad: #ff8a80; --doubt: #f2c14e;
    --gap: #ff8a80; --heat: 86, 180, 233 } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100% }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
main, footer { max-width: 68rem; margin: 0 auto; padding: 1.25rem clamp(.8rem, 3vw, 2rem) }
footer { color: var(--faint); font-size: .85rem; padding-top: 0 }
h1 { font-size: 1.55rem; line-height: 1.2; margin: 0 0 .3rem }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.2rem 0 .4rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); overflow-wrap: anywhere }
h3 { font-size: 1rem; margin: 1.7rem 0 .4rem }
p { margin: .3rem 0 }
a { color: var(--a) }
code { font: .92em/1.4 ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere }
.faint { color: var(--faint) }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); gap: .8rem;
  margin: 1rem 0 }
.cards.four { grid-template-columns: repeat(auto-fit, minmax(min(13rem, 100%), 1fr)) }
.card { background: var(--panel); border: 1px solid var(--line); border-left: 4px solid var(--tone, var(--line));
  border-radius: .5rem; padding: .7rem .9rem; min-width: 0 }
.card .name { color: var(--faint); font-size: .85rem; overflow-wrap: anywhere }
.card .figure { font-size: 1.5rem; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere }
.card .more { color: var(--faint); font-size: .85rem; font-variant-numeric: tabular-nums }
.verdict { border-left: 6px solid var(--tone); background: var(--panel); border-radius: .5rem; padding: .8rem 1rem;
  margin: 1rem 0 }
.verdict strong { font-size: 1.2rem; color: var(--tone) }
.idle { --tone: var(--idle) } .a { --tone: var(--a) } .b { --tone: var(--b) } .run { --tone: var(--run) }
.good { --tone: var(--good) } .bad { --tone: var(--bad) } .doubt { --tone: var(--doubt) } .gap { --tone: var(--gap) }
.warnings { border-left: 4px solid var(--doubt); background: var(--panel); border-radius: .5rem; margin: 1rem 0;
  padding: .6rem 1rem; overflow-wrap: anywhere }
.warnings ul { margin: .2rem 0; padding-left: 1.2rem }
figure { margin: .6rem 0 1.2rem }
figcaption { color: var(--faint); font-size: .85rem; margin-top: .35rem }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; font-size: .85rem; margin: .2rem 0 .4rem; padding: 0;
  list-style: none; color: var(--faint) }
.legend li { min-width: 0; overflow-wrap: anywhere }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; vertical-align: -.08rem;
  border-radius: .15rem; background: var(--tone) }
.plot { display: grid; grid-template-columns: 3.4rem minmax(0, 1fr); margin-right: 1.2rem }
.plot .unit { grid-column: 1 / -1; color: var(--faint); font-size: .8rem; margin-bottom: .35rem }
.plot .y, .plot .x { position: relative; color: var(--faint); font-size: .78rem; font-variant-numeric: tabular-nums }
.plot .y span { position: absolute; right: .45rem; transform: translateY(50%); line-height: 1; white-space: nowrap }
.plot .x { grid-column: 2; height: 1.5rem }
.plot .x span { position: absolute; top: .25rem; transform: translateX(-50%); white-space: nowrap }
.plot .name { grid-column: 2; text-align: center; color: var(--faint); font-size: .8rem }
.plot .area { position: relative; border-left: 1px solid var(--line); border-bottom: 1px solid var(--line) }
.plot svg { display: block; width: 100%; height: 100%; position: absolute; overflow: visible }
.plot .mark { position: absolute; top: .1rem; transform: translateX(-50%); font-size: .75rem; font-weight: 600;
  color: var(--tone); white-space: nowrap }
.plot .mark.low { top: auto; bottom: .1rem }
svg * { vector-effect: non-scaling-stroke }
svg .grid { stroke: var(--line); stroke-width: 1; opacity: .7 }
svg .curve { fill: none; stroke: var(--text); stroke-width: 1.4; stroke-linejoin: round }
svg .spread { fill: var(--text); opacity: .22; stroke: none }
svg .window { fill: var(--tone); opacity: .16 }
svg .level { fill: none; stroke: var(--tone); stroke-width: 2.5 }
svg .dashed { fill: none; stroke: var(--tone); stroke-width: 1.4; stroke-dasharray: 5 4 }
svg .missing { fill: var(--gap); opacity: .25 }
svg .band { fill: var(--tone); opacity: .15 }
svg .range { fill: none; stroke: var(--tone); stroke-width: 4; stroke-linecap: butt }
svg .dot { fill: none; stroke: var(--tone); stroke-width: 8; stroke-linecap: round }
svg .pale { fill: none; stroke: var(--tone); stroke-width: 6; stroke-linecap: round; opacity: .45 }
.scroll { overflow: auto; max-width: 100%; max-height: 28rem }
table { border-collapse: collapse; font-size: .88rem; width: 100% }
.caption { color: var(--faint); font-size: .85rem }
th, td { text-align: right; padding: .28rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums }
th { font-weight: 600; color: var(--faint) }
th[scope=row] { color: var(--text); white-space: normal; overflow-wrap: anywhere; min-width: 7rem }
th:first-child, td:first-child { text-align: left }
td.bars { min-width: 9rem; width: 34% }
.bar { display: block; height: .62rem; margin: .14rem 0; border-radius: .12rem; background: var(--tone);
  min-width: 1px }
.track { display: block; background: var(--line); border-radius: .12rem; min-width: 4rem }
details { margin: .7rem 0 } summary { cursor: pointer; color: var(--faint) }
.heat { display: grid; grid-template-columns: minmax(4.5rem, max-content) minmax(0, 1fr); gap: 1px .5rem;
  font-size: .78rem; align-items: center }
.heat .layer { color: var(--faint); overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  max-width: 10.5rem }
.heat .cells { display: flex; height: .95rem }
.heat .cells i { flex: 1 1 0; min-width: 0; background: rgba(var(--heat), var(--kept)) }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem 1.6rem }
@media (max-width: 34rem) { .plot .x.many span:nth-child(even) { display: none } .plot .mark.many { display: none }
  .plot { grid-template-columns: 2.7rem minmax(0, 1fr) }
  .cards, .cards.four { grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .5rem }
  .card .figure { font-size: 1.25rem } }
@media print { .card, .verdict, .warnings { break-inside: avoid } }
"""


class Markup(str):
    """Text that is HTML already; all other text is escaped on its way into a tag."""


def tag(name, *children, **attributes):
    """An element as Markup. children: Markup, text, numbers or lists of them; None is left out.

    attributes: None is left out; `class_` is class, an underscore is a hyphen.
    """
    given = "".join(' {}="{}"'.format(key.rstrip("_").replace("_", "-"), _text(value))
                    for key, value in attributes.items() if value is not None)
    inside = together(children)
    if not inside and name in ("path", "rect", "line", "meta", "link"):
        return Markup("<{}{}/>".format(name, given))
    return Markup("<{0}{1}>{2}</{0}>".format(name, given, inside))


def together(children):
    """Children one after the other, as Markup."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, (list, tuple)):
            parts.append(together(child))
        elif child is not None:
            parts.append(_text(child))
    return Markup("".join(parts))


def table(head, rows, caption=None):
    """A table that scrolls sideways on its own where it is too wide. rows: each a list of cells, its first the row's
    name; a cell: text, Markup, or a whole <td> as Markup."""
    return together([tag("p", caption, class_="caption") if caption else None, tag("div", tag(
        "table", tag("thead", tag("tr", [tag("th", cell, scope="col") for cell in head])),
        tag("tbody", [tag("tr", tag("th", row[0], scope="row"), [_cell(cell) for cell in row[1:]]) for row in rows])),
        class_="scroll", tabindex="0", role="region", aria_label=caption or " ".join(map(str, head)))])


def bar(share, tone):
    """A bar of `share` (0 to 1) of its cell's width; it repeats a figure that stands beside it."""
    return tag("span", class_="bar " + tone, style="width:{:.1f}%".format(100.0 * min(max(share, 0.0), 1.0)),
               aria_hidden="true")


def card(name, figure, more=None, tone=None):
    """A figure in large type. more: a line below it."""
    return tag("div", tag("div", name, class_="name"), tag("div", figure, class_="figure"),
               None if more is None else tag("div", more, class_="more"), class_="card" + (" " + tone if tone else ""))


def warnings(lines):
    """A box of warnings; nothing where there are none."""
    if not lines:
        return None
    return tag("div", tag("strong", "Warning" if len(lines) == 1 else "Warnings"),
               tag("ul", [tag("li", line) for line in lines]), class_="warnings", role="note")


def legend(entries):
    """entries: [(tone, text)]."""
    return tag("ul", [tag("li", tag("i", class_=tone, aria_hidden="true"), text) for tone, text in entries],
               class_="legend")


def page(title, *content):
    """The whole page as text."""
    head = tag("head", tag("meta", charset="utf-8"),
               tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
               tag("meta", name_="color-scheme", content="light dark"),
               Markup('<meta http-equiv="Content-Security-Policy" content="{}"/>'.format(escape(_POLICY))),
               tag("link", rel="icon", href="data:,"), tag("title", title), tag("style", Markup(_STYLE)))
    body = tag("body", tag("main", content), tag("footer", "dance_deploy " + __version__))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def write_page(text, path):
    """Write a page whole or not at all. Raises OperationError where the place cannot be written."""
    with whole_file(path, "wb") as stream:
        stream.write(text.encode("utf-8", "replace"))  # a file's name may hold bytes that are no text


def check_page_path(path):
    """Raise InputError for a name that is no HTML file's: `report -o run.json` must not replace the recording."""
    if not str(path).lower().endswith((".html", ".htm")):
        raise InputError("'{}': expected a file name that ends in .html".format(path))


def _cell(cell):
    return cell if isinstance(cell, Markup) and cell.startswith("<td") else tag("td", cell)


def _text(value):
    """Escaped; control characters, which HTML cannot hold, as question marks."""
    return escape("".join(c if c >= " " or c in "\n\t" else "?" for c in str(value)))
