"""Values out of a JSON file from strangers: each is checked for its type and range before anything uses it.

Every function returns the value (lists as tuples) or raises CheckError, whose text starts at `where`, the key's path
inside the file; the caller adds which file.
"""
import json
import math
import unicodedata

from dance_deploy.errors import InputError

_MAX_ITEMS = 100000
_LONGEST_SHOWN = 80
# embeddings, overrides and isolates
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class CheckError(InputError):
    """A value that cannot be right; says where in the file, what came and what was expected."""


def tree_from_json(data, max_bytes):
    """The tree in `data` (at most `max_bytes` bytes): JSON in UTF-8 without duplicate keys, NaN or infinities."""
    if len(data) > max_bytes:
        raise CheckError("is {} bytes long, more than the {} allowed".format(len(data), max_bytes))
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object_without_duplicates, parse_int=_short_int,
                          parse_constant=_no_constant)
    except CheckError:
        raise
    except RecursionError:
        raise CheckError("is nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise CheckError("is not JSON in UTF-8 ({})".format(_shorten(str(error)))) from error


def mapping(value, where, keys):
    """An object with exactly `keys`."""
    prefix = where + ": " if where else ""
    if type(value) is not dict:
        raise wrong(where or "it", value, "an object with the keys %s" % ", ".join(keys))
    missing = [key for key in keys if key not in value]
    if missing:
        raise CheckError("%skey '%s' is missing" % (prefix, missing[0]))
    unknown = sorted(set(value) - set(keys))
    if unknown:
        raise CheckError("%sunknown key %s, expected only %s" % (prefix, shown(unknown[0]), ", ".join(keys)))
    return value


def array(value, where, at_least=0):
    """A list of at least `at_least` entries."""
    if type(value) is not list or not at_least <= len(value) <= _MAX_ITEMS:
        raise wrong(where, value, "a list of at least %d entries" % at_least)
    return value


def integer(value, where, low, high):
    """A whole number from low to high (true and 1.0 are none)."""
    if type(value) is not int or not low <= value <= high:
        raise wrong(where, value, "a whole number from %d to %d" % (low, high))
    return value


def integers(value, where, length, low, high):
    """A list of exactly `length` whole numbers."""
    if type(value) is not list or len(value) != length:
        raise wrong(where, value, "a list of %d whole numbers" % length)
    return tuple(integer(item, "%s[%d]" % (where, i), low, high) for i, item in enumerate(value))


def number(value, where, low, high):
    """A finite number from low to high, as float."""
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise wrong(where, value, "a number from %g to %g" % (low, high))
    return float(value)


def numbers(value, where, length, low, high):
    """A list of exactly `length` numbers, as floats."""
    if type(value) is not list or len(value) != length:
        raise wrong(where, value, "a list of %d numbers" % length)
    return tuple(number(item, "%s[%d]" % (where, i), low, high) for i, item in enumerate(value))


def boolean(value, where):
    """true or false."""
    if type(value) is not bool:
        raise wrong(where, value, "true or false")
    return value


def _fit_for_terminals(text):
    """No control characters, line ends, lone surrogates, or marks that turn the direction of what follows. Joiners and
    other spaces than the plain one stay: many languages write with them."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _TURNING for c in text)


def text(value, where, longest=512):
    """1 to `longest` characters, none of them a control character: these strings are printed to terminals."""
    if type(value) is not str or not 1 <= len(value) <= longest or not _fit_for_terminals(value):
        raise wrong(where, value, "1 to %d printable characters" % longest)
    return value


def choice(value, where, choices):
    """One of `choices`."""
    if type(value) is not str or value not in choices:
        raise wrong(where, value, "one of %s" % ", ".join(choices))
    return value


def unique(names, where, what):
    """Raise where a name stands twice."""
    seen = set()
    for name in names:
        if name in seen:
            raise CheckError("%s: the %s %s stands there twice" % (where, what, shown(name)))
        seen.add(name)


def wrong(where, value, expected):
    """The error for `value` at `where`."""
    return CheckError("%s is %s, expected %s" % (where, shown(value), expected))


def shown(value):
    """`value` in ASCII, cut to one short piece of a line."""
    try:
        return _shorten(ascii(value))
    except RecursionError:
        return "something nested deeply"


def _shorten(line):
    return line if len(line) <= _LONGEST_SHOWN else line[:_LONGEST_SHOWN] + "..."


def _object_without_duplicates(pairs):
    unique([key for key, _ in pairs], "an object", "key")
    return dict(pairs)


def _short_int(digits):
    if len(digits) > 20:  # int() of a megabyte of digits takes minutes
        raise CheckError("holds a whole number of %d digits" % len(digits))
    return int(digits)


def _no_constant(name):
    raise CheckError("holds %s, which is not JSON" % name)
