"""What one line of tegrastats says, from TK1 to Thor: a stream of tokens, read in any order, any of them missing.

    line   = [date " " time " "] ram [swap] [iram] cpu { load | engine | mts | temp | rail }
    ram    = "RAM " used "/" total "MB (lfb " n "x" size ")"        swap, iram: alike
    cpu    = "CPU [" core { "," core } "]" | "cpu [" ... "]@" MHz   core = percent "%" [ "@" MHz ] | "off"
    load   = ("EMC_FREQ" | "EMC" | "GR3D_FREQ" | "GR3D" | ...) " " value
    engine = NAME " " ("off" | MHz | "@" MHz | percent "%" [ "@" MHz ])
    temp   = NAME "@" degrees "C" [ "/" peak "C" ]
    rail   = NAME " " now "/" avg [ "/" peak ]                      numbers all with "mW" or all without

No text raises: a column that is missing, cut or unknown is absent from the Sample, never 0. `GPU` and `CPU` name a
temperature, a rail or the cores; what follows decides. Every number's digits are bounded, so no line takes long.
"""
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

# longer than any real line (Thor prints 0.8 kB); what is longer is another program's output or a damaged file
LONGEST_LINE = 16384
OFF = "off"

# IRAM is another column; a line that broke off may stand right before the next one ("VDD_IN 53RAM 1752/7620MB ...")
_START = re.compile(r"(?:(\d\d-\d\d-\d{4} \d\d:\d\d:\d\d) )?(?<![A-Za-z])RAM (\d{1,9})/(\d{1,9})MB(?=\s|$)", re.ASCII)
_USED = re.compile(r"(\d{1,9})/(\d{1,9})MB$", re.ASCII)
_CORE = re.compile(r"(?:(\d{1,3})%(?:@(\d{1,6}))?|off)$", re.ASCII)
_VALUE = re.compile(r"(?:(\d{1,3})%)?(?:@(\[[\d,]{1,80}\]|-?\d{1,6}))?$", re.ASCII)
_ENGINE = re.compile(r"(?:off|@?-?\d{1,6}|\d{1,3}%(?:@-?\d{1,6})?)$", re.ASCII)
_ENGINE_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}$", re.ASCII)
_TEMP = re.compile(r"([A-Za-z][\w.:-]{0,39})@(-?\d{1,4}(?:\.\d{1,4})?)C(?:/(-?\d{1,4}(?:\.\d{1,4})?)C)?$", re.ASCII)
_RAIL = re.compile(r"(-?\d{1,8})(mW|)/(-?\d{1,8})(mW|)(?:/(-?\d{1,8})(mW|))?$", re.ASCII)
# labels come from the device tree; without a unit only the capitals of NVIDIA's are taken, or "Epoch 3/10" were a rail
_RAIL_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}$", re.ASCII)
_RAIL_NAME_MW = re.compile(r"[A-Za-z][\w.+:-]{0,39}$", re.ASCII)


class Rail(NamedTuple):
    """label: the sensor's own; now_mw: instantaneous; avg_mw: running mean since tegrastats started; peak_mw: since
    start, None where it is not printed (up to R38)."""

    label: str
    now_mw: int
    avg_mw: int
    peak_mw: Optional[int] = None


class Sample(NamedTuple):
    """One line. None: the column is not there, or says nothing.

    timestamp: as printed, local time; ram_mb, swap_mb: (used, total); cpu_load_pct: percent or "off" by core, () where
    no core list is there; cpu_mhz: by core, None for a core that is off or prints none; gpu_load_pct, emc_load_pct: as
    printed; gpu_mhz: by cluster; temps_c: (zone, degrees) or (zone, degrees, peak); -256 is a sensor without power;
    rails: as printed, names may repeat; engines: text by name; unknown: tokens that fit nothing.
    """

    timestamp: Optional[str]
    ram_mb: Optional[Tuple[int, int]]
    swap_mb: Optional[Tuple[int, int]]
    cpu_load_pct: Tuple
    cpu_mhz: Tuple
    gpu_load_pct: Optional[int]
    gpu_mhz: Tuple
    emc_load_pct: Optional[int]
    emc_mhz: Optional[int]
    temps_c: List[Tuple]
    rails: List[Rail]
    engines: Dict[str, str]
    unknown: List[str]


def sample_from_line(line):
    """The Sample in `line` (str), or None where the line has neither a RAM column nor a list of cores.

    Where two lines ran into one, the later is read; text before it (a prompt, a logger's prefix) is passed over.
    """
    if len(line) > LONGEST_LINE:
        return None
    starts = list(_START.finditer(line))
    start = starts[-1] if starts else None
    reader = _Reader()
    reader.read((line if start is None else line[start.end():]).split())
    if start is None:
        return reader.sample(None, None) if reader.cpu_load_pct else None
    return reader.sample(start.group(1), (int(start.group(2)), int(start.group(3))))


class _Reader(object):
    """Collects the columns of one line."""

    __slots__ = ("swap_mb", "cpu_load_pct", "cpu_mhz", "loads", "temps_c", "rails", "engines", "unknown")

    def __init__(self):
        self.swap_mb = None
        self.cpu_load_pct, self.cpu_mhz = (), ()
        self.loads = {}
        self.temps_c, self.rails, self.unknown = [], [], []
        self.engines = {}

    def sample(self, timestamp, ram_mb):
        gpu_load_pct, gpu_mhz = self.loads.get("GR3D", (None, ()))
        emc_load_pct, emc_mhz = self.loads.get("EMC", (None, ()))
        return Sample(timestamp, ram_mb, self.swap_mb, self.cpu_load_pct, self.cpu_mhz, gpu_load_pct, gpu_mhz,
                      emc_load_pct, emc_mhz[0] if emc_mhz else None, self.temps_c, self.rails, self.engines,
                      self.unknown)

    def read(self, tokens):
        at, end = 0, len(tokens)
        while at < end:
            token = tokens[at]
            if token[-1] == "C" and self._temp(token):
                at += 1
            elif at + 1 < end and self._pair(token, tokens[at + 1]):
                at += 2
            else:
                at += self._other(tokens, at)

    def _temp(self, token):
        match = _TEMP.match(token)
        if match is None:
            return False
        zone, degrees, peak = match.groups()
        self.temps_c.append((zone, _number(degrees)) if peak is None else (zone, _number(degrees), _number(peak)))
        return True

    def _pair(self, name, value):
        """Whether `name value` is a column that is known."""
        if "/" in value:
            return self._rail(name, value) or name == "SWAP" and self._swap(value)
        if value[0] == "[":
            return name in ("CPU", "cpu") and self._cores(value)
        column = _LOADS.get(name)
        if column is not None:
            return self._load(column, value)
        if _ENGINE.match(value) and _ENGINE_NAME.match(name):
            self.engines[name] = value
            return True
        return False

    def _rail(self, name, value):
        match = _RAIL.match(value)
        if match is None:
            return False
        now, unit, avg, avg_unit, peak, peak_unit = match.groups()
        if unit != avg_unit or peak is not None and unit != peak_unit:  # a number cut in half
            return False
        if not (_RAIL_NAME_MW if unit else _RAIL_NAME).match(name):
            return False
        self.rails.append(Rail(name, int(now), int(avg), None if peak is None else int(peak)))
        return True

    def _swap(self, value):
        match = _USED.match(value)
        if match is not None:
            self.swap_mb = (int(match.group(1)), int(match.group(2)))
        return match is not None

    def _cores(self, value):
        inside, closed, clock = value[1:].partition("]")
        if not closed:
            return False
        # up to R28.1 one clock for all cores behind the list; some TK1 systems print -1
        shared = int(clock[1:]) if re.match(r"@\d{1,6}$", clock, re.ASCII) else None
        loads, clocks = [], []
        for core in inside.split(","):
            match = _CORE.match(core)
            if match is None:
                return False
            percent, mhz = match.groups()
            loads.append(OFF if percent is None else int(percent))
            clocks.append(int(mhz) if mhz is not None else None if percent is None else shared)
        self.cpu_load_pct, self.cpu_mhz = tuple(loads), tuple(clocks)
        return True

    def _load(self, column, value):
        match = _VALUE.match(value)
        if match is None or not value:
            return False
        percent, clock = match.groups()
        clocks = () if clock is None else tuple(int(mhz) for mhz in clock.strip("[]").split(",") if 0 < len(mhz) < 8)
        # the first GR3D column is the GPU's, should there be a second
        self.loads.setdefault(column, (None if percent is None else int(percent), clocks))
        return True

    def _other(self, tokens, at):
        """How many tokens to pass over at `at`: a parenthesis, the MTS column, or one that is unknown."""
        token = tokens[at]
        if token[0] == "(":  # (lfb 366x4MB), (cached 0MB)
            for length in (1, 2):
                if tokens[at:at + length][-1].endswith(")"):
                    return length
        if token == "MTS" and tokens[at + 1:at + 4:2] == ["fg", "bg"]:
            self.engines["MTS"] = " ".join(tokens[at + 1:at + 5])
            return 5
        if token == "IRAM" and tokens[at + 2:at + 3] and tokens[at + 1].endswith("(lfb"):  # IRAM 0/252kB(lfb 252kB)
            return 3
        self.unknown.append(token)
        return 1


# column names by release: EMC, GR3D up to R28.1; GR3D2 is the second cluster of the same GPU, up to R35.3
_LOADS = {"EMC": "EMC", "EMC_FREQ": "EMC", "GR3D": "GR3D", "GR3D_FREQ": "GR3D", "GR3D2_FREQ": "GR3D2"}


def _number(text):
    """An int where no point is printed, else a float."""
    return float(text) if "." in text else int(text)
