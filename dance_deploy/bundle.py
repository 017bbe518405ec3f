"""The bundle: a folder with a model ready to run, complete or absent, whose bytes are verified before they are used.

Format and guarantees: docs/bundle.md. Standard library only; no file but the manifest is parsed here.
"""
import ctypes
import errno
import hashlib
import json
import os
import shutil
import stat
import uuid
from concurrent.futures import ThreadPoolExecutor

from dance_deploy import checked
from dance_deploy.checked import CheckError
from dance_deploy.errors import InputError, OperationError
from dance_deploy.manifest import (
    ENGINES_FOLDER,
    FORMAT,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    OPTIONAL_FILES,
    REQUIRED_FILES,
    VERSION,
    is_bundle_file_name,
    manifest_from_bytes,
)

BUNDLE_NAMES = REQUIRED_FILES + OPTIONAL_FILES + (MANIFEST_NAME, ENGINES_FOLDER)

_CHUNK_BYTES = 1 << 20
_HASH_THREADS = 2  # hashlib releases the GIL; two keep up with what a board's storage delivers
_COPY_AGAIN = "copy the bundle again, or write it anew with dance-export"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fs.h, fcntl.h


class Bundle(object):
    """An opened bundle. path: the folder; manifest: the checked Manifest."""

    def __init__(self, path, manifest, kept):
        self.path = path
        self.manifest = manifest
        self._kept = kept

    def read(self, name):
        """The bytes of the listed file `name`, verified: what is returned is what was hashed.

        Bytes that open_bundle was asked to keep are handed over once and then forgotten.
        """
        if name not in self.manifest.files:
            raise InputError("bundle '{}': the manifest lists no file '{}'".format(self.path, name))
        if name in self._kept:
            return self._kept.pop(name)
        return _verified(self.path, name, self.manifest.files[name], keep=True)

    def unlisted(self):
        """Names of files and folders inside the folder that the manifest does not list; none of them is ever read."""
        known = set(self.manifest.files) | set(BUNDLE_NAMES)
        found = [name for name in os.listdir(self.path) if name not in known]
        engines = os.path.join(self.path, ENGINES_FOLDER)
        if os.path.isdir(engines):
            inside = (ENGINES_FOLDER + "/" + name for name in os.listdir(engines))
            found.extend(name for name in inside if name not in known)
        return sorted(found)


def open_bundle(path, verify=True, keep=()):
    """Open the bundle in the folder `path`.

    The manifest and every file's presence, kind and size are checked always; with `verify`, every hash as well, each
    file read once. keep: names of files whose verified bytes stay in memory for the first Bundle.read().
    Raises InputError with one line that names the file.
    """
    path = os.fspath(path)
    if not os.path.isdir(path):
        what = "is a file, not a folder" if os.path.exists(path) else "does not exist"
        raise InputError("bundle '{}' {}; name the folder that dance-export wrote".format(path, what))
    manifest = _read_manifest(path)
    for name in sorted(manifest.files):
        os.close(_open_listed(path, name, manifest.files[name]))
    kept = _verify_all(path, manifest, keep) if verify else {}
    return Bundle(path, manifest, kept)


def write_bundle(folder, manifest_fields, files, overwrite=True):
    """Write a bundle whole or not at all; returns it opened.

    manifest_fields: the manifest's tree without format, version and files; files: {name: bytes, or path of a file to
    copy}. A bundle that stands there already is swapped for the new one at the end (with overwrite), and stays as it is
    when anything fails before. Raises InputError where the place is taken, OperationError where writing fails.
    """
    target = os.path.realpath(os.fspath(folder))
    check_replaceable(target, overwrite)
    temporary = _sibling(target, "partial")
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.mkdir(temporary)
        _fill(temporary, manifest_fields, files)
        _put_in_place(temporary, target)
    except OSError as error:
        raise OperationError("bundle '{}' could not be written: {}".format(target, _reason(error))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_bundle(target, verify=False)


def _read_manifest(path):
    where = os.path.join(path, MANIFEST_NAME)
    try:
        descriptor = _open_plain(where)
    except InputError as error:
        raise InputError("bundle '{}': {} {}; is it a folder that dance-export wrote?".format(
            path, MANIFEST_NAME, error)) from error
    try:
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise InputError("bundle '{}': {} cannot be read: {}".format(path, MANIFEST_NAME, _reason(error))) from error
    try:
        return manifest_from_bytes(data)
    except CheckError as error:
        raise InputError("bundle '{}': {}: {}; {}".format(path, MANIFEST_NAME, error, _COPY_AGAIN)) from error


def _open_plain(path):
    """Descriptor of the plain file `path`, opened without following a link or waiting for a pipe.

    Raises InputError whose text continues a sentence that begins with the file's name.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise InputError("is missing") from error
        if error.errno == errno.ELOOP:
            raise InputError("is a symbolic link, and a bundle holds plain files only") from error
        raise InputError("cannot be opened: {}".format(_reason(error))) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("is not a plain file")
    return descriptor


def _open_listed(path, name, entry):
    """Descriptor of a listed file whose size is what the manifest says."""
    try:
        if name.startswith(ENGINES_FOLDER + "/") and os.path.islink(os.path.join(path, ENGINES_FOLDER)):
            raise InputError("lies behind a symbolic link, and a bundle holds plain files only")
        descriptor = _open_plain(os.path.join(path, *name.split("/")))
    except InputError as error:
        raise InputError("bundle '{}': {} {}; {}".format(path, name, error, _COPY_AGAIN)) from error
    size = os.fstat(descriptor).st_size
    if size != entry.size:
        os.close(descriptor)
        raise InputError("bundle '{}': {} is {} bytes long, the manifest says {}; {}".format(
            path, name, size, entry.size, _COPY_AGAIN))
    return descriptor


def _verified(path, name, entry, keep):
    """The bytes of a listed file whose size and SHA-256 are right; None unless `keep`."""
    descriptor = _open_listed(path, name, entry)
    digest = hashlib.sha256()
    try:
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read(entry.size) if keep else None
            for chunk in [data] if keep else iter(lambda: stream.read(_CHUNK_BYTES), b""):
                digest.update(chunk)
    except OSError as error:
        raise InputError("bundle '{}': {} cannot be read: {}".format(path, name, _reason(error))) from error
    if digest.hexdigest() != entry.sha256:
        raise InputError("bundle '{}': {} is damaged: its SHA-256 is {}..., the manifest says {}...; {}".format(
            path, name, digest.hexdigest()[:12], entry.sha256[:12], _COPY_AGAIN))
    return data


def _verify_all(path, manifest, keep):
    """{name: verified bytes} of the files in `keep`; every other file is hashed and dropped."""
    names = sorted(manifest.files, key=lambda name: -manifest.files[name].size)
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        jobs = {name: pool.submit(_verified, path, name, manifest.files[name], name in keep) for name in names}
    return {name: data for name, data in ((name, jobs[name].result()) for name in sorted(jobs)) if data is not None}


def check_replaceable(target, overwrite):
    """Raise InputError unless `target` can be written: free, an empty folder, or a bundle that may be replaced."""
    above = os.path.dirname(target)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not (os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)):
        raise InputError("'{}' cannot be written: '{}' is no folder that this user may write to".format(target, above))
    if not os.path.lexists(target):
        return
    if not os.path.isdir(target):
        raise InputError("'{}' is a file; name a folder for the bundle".format(target))
    names = os.listdir(target)
    if names and not _looks_like_bundle(target):
        raise InputError("'{}' holds files and is not a bundle; it is left alone: name another folder".format(target))
    if names and not overwrite:
        raise InputError("'{}' holds a bundle already; name another folder or allow overwriting".format(target))
    strangers = sorted(set(names) - set(BUNDLE_NAMES))
    if strangers:
        raise InputError("'{}' is a bundle that also holds {}; move that out first, or name another folder".format(
            target, checked.shown(strangers[0])))


def _looks_like_bundle(folder):
    try:
        with open(os.path.join(folder, MANIFEST_NAME), "rb") as stream:
            tree = checked.tree_from_json(stream.read(MAX_MANIFEST_BYTES + 1), MAX_MANIFEST_BYTES)
    except (OSError, CheckError):
        return False
    return type(tree) is dict and tree.get("format") == FORMAT


def _fill(folder, manifest_fields, files):
    """Write every file, then the manifest, into the fresh `folder`, down to the disk."""
    entries = {}
    for name in sorted(files):
        path = os.path.join(folder, *name.split("/"))
        if not is_bundle_file_name(name):
            raise ValueError("'{}' cannot be a file of a bundle".format(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        entries[name] = _write_file(path, files[name])
    tree = dict(manifest_fields, format=FORMAT, version=VERSION, files=entries)
    text = json.dumps(tree, indent=1, sort_keys=True, allow_nan=False) + "\n"
    try:
        manifest_from_bytes(text.encode("utf-8"))  # nothing is written that open_bundle would refuse
    except CheckError as error:
        raise InputError("a bundle cannot hold this model: {}: {}".format(MANIFEST_NAME, error)) from error
    _write_file(os.path.join(folder, MANIFEST_NAME), text.encode("utf-8"))
    for directory, _, _ in os.walk(folder):
        _sync_folder(directory)


def _write_file(path, content):
    """Write bytes, or a copy of the file `content` names; returns the manifest's entry."""
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as out:
        for chunk in [content] if isinstance(content, bytes) else _chunks(content):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    return {"sha256": digest.hexdigest(), "size": size}


def _chunks(path):
    with open(os.fspath(path), "rb") as stream:
        for chunk in iter(lambda: stream.read(_CHUNK_BYTES), b""):
            yield chunk


def _put_in_place(temporary, target):
    """Rename `temporary` to `target`; a folder that stands there ends up removed."""
    try:
        os.rename(temporary, target)  # enough where the place is free or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(temporary, target):
            _swap_in_two_steps(temporary, target)
    _sync_folder(os.path.dirname(target))


def _exchange(first, second):
    """Swap two folders in one step; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2  # glibc 2.28 and newer
    except (AttributeError, OSError, TypeError):
        return False
    return renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0


def _swap_in_two_steps(temporary, target):
    """For systems without an exchange: between the two renames the old bundle stands beside, under a hidden name."""
    aside = _sibling(target, "old")
    try:
        os.rename(target, aside)
        os.rename(temporary, target)
    except BaseException:
        if os.path.isdir(aside) and not os.path.lexists(target):
            os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync_folder(path):
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sibling(target, kind):
    return os.path.join(os.path.dirname(target), ".{}.{}-{}".format(
        os.path.basename(target), kind, uuid.uuid4().hex[:8]))


def _reason(error):
    reason = error.strerror or str(error)
    return "{} ('{}')".format(reason, error.filename) if isinstance(error.filename, str) else reason
