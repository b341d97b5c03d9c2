# SPDX-License-Identifier: Apache-2.0
"""Workloads that read. They need the data set (dataset.py) in the volume and run on read-only volumes too."""

import ctypes
import mmap
import os
import stat
import struct
import time

from storm import dataset
from storm.run import first_difference

PAGE = 4096
libc = ctypes.CDLL(None, use_errno=True)
_inodes = {}  # what the first round saw


def forget_pages(run, fd):
    """What the page cache has of a file goes, so that the next read asks for it."""
    run("posix_fadvise", fd, 0, 0, os.POSIX_FADV_DONTNEED)


def check(run, call, path, found, expected):
    if found != expected:
        run.differs(call, path, first_difference(found, expected))


def _open_big(run, name):
    path = os.path.join(run.top, "big", name)
    fd = run("open", path, os.O_RDONLY)
    forget_pages(run, fd)
    return path, fd, dataset.content(name, dataset.BIG[name])


def big(run):
    """Readers of big files, one from the start to the end, one at random offsets, one of a file that stays open."""
    def in_order():
        for name in dataset.BIG:
            path, fd, expected = _open_big(run, name)
            offset = 0
            while part := run("read", fd, 1 << 17):
                check(run, f"read at {offset}", path, part, expected[offset:offset + len(part)])
                offset += len(part)
            run.equal("read", path, offset, len(expected))
            run("close", fd)

    def anywhere():
        files = [_open_big(run, name) for name in dataset.BIG]
        for i in range(1500):
            path, fd, expected = run.rng.choice(files)
            offset, length = run.rng.randrange(len(expected)), run.rng.choice((1, 500, PAGE, 70000))
            check(run, f"pread at {offset}", path, run("pread", fd, length, offset), expected[offset:offset + length])
            if i % 300 == 0:
                forget_pages(run, fd)
        for _, fd, _ in files:
            run("close", fd)

    run.together(in_order, anywhere)


def small(run):
    """Open, read and close of small files, in any order."""
    names = list(dataset.SMALL)
    run.rng.shuffle(names)
    for name in names:
        path = os.path.join(run.top, "small", name)
        check(run, "read", path, run.read_file(path), dataset.content(name, dataset.SMALL[name]))


def tree(run):
    """find(1), and a stat of what it should have found."""
    top = os.path.join(run.top, "small")
    found = run.command("find", top, "-type", "f", "-printf", "%P %s\\n").decode().splitlines()
    expected = sorted(f"{name} {size}" for name, size in dataset.SMALL.items())
    if sorted(found) != expected:
        lost, more = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        run.differs("find", top, f"not found: {lost[:5]}, too much: {more[:5]}, {len(found)} lines of {len(expected)}")
    for name, size in dataset.SMALL.items():
        path = os.path.join(top, name)
        st = run("lstat", path)
        run.equal("lstat", path, (stat.S_ISREG(st.st_mode), st.st_size, st.st_nlink), (True, size, 1))
        run.equal("lstat (st_ino)", path, st.st_ino, _inodes.setdefault(name, st.st_ino))


def mapped(run):
    """Readers by mmap. A page that can't be had is SIGBUS, of which the process dies."""
    def reader():
        for name in dataset.BIG:
            path, fd, expected = _open_big(run, name)
            run.mark(f"mmap {path}")
            with mmap.mmap(fd, len(expected), prot=mmap.PROT_READ) as m:
                run("close", fd)
                for _ in range(400):
                    offset = run.rng.randrange(len(expected) - 2 * PAGE)
                    run.mark(f"page at {offset} of mmap {path}")
                    check(run, f"page at {offset}", path, m[offset:offset + PAGE], expected[offset:offset + PAGE])

    run.together(reader)


def entries_at(run, fd, path):
    """What one getdents64(2) into a small buffer gives: (name, position after it), "." and ".." left out."""
    buffer = ctypes.create_string_buffer(1024)

    def call():
        n = libc.getdents64(fd, buffer, len(buffer))
        if n < 0:
            raise OSError(ctypes.get_errno(), "getdents64")
        return n
    n, at, found = run.do("getdents64", path, call), 0, []
    while at < n:
        _, off, length, _ = struct.unpack_from("<QqHB", buffer.raw, at)
        name = buffer.raw[at + 19:at + length].split(b"\0")[0].decode()
        if name not in (".", ".."):
            found.append((name, off))
        at += length
    return n > 0, found


def list_slowly(run, path, stay):
    """Each name of `stay` exactly once, from the start and again from where telldir(3) said in between."""
    fd = run("open", path, os.O_RDONLY | os.O_DIRECTORY)
    found, more, places = [], True, []
    while more:
        more, some = entries_at(run, fd, path)
        found += some
        if some and run.rng.random() < 0.1:
            time.sleep(0.002)
            places.append((len(found), some[-1][1]))
    compare_names(run, "readdir", path, [name for name, _ in found], stay)
    for count, position in run.rng.sample(places, min(3, len(places))):
        run("lseek", fd, position, os.SEEK_SET)
        rest, more = [], True
        while more:
            more, some = entries_at(run, fd, path)
            rest += some
        left = stay - {name for name, _ in found[:count]}
        compare_names(run, f"readdir after seekdir({position})", path, [name for name, _ in rest], left)
    run("close", fd)


def compare_names(run, call, path, found, expected):
    """The names that were there all the time are there once; others may be."""
    times = {}
    for name in found:
        times[name] = times.get(name, 0) + 1
    lost = sorted(name for name in expected if name not in times)
    twice = sorted(name for name in expected if times.get(name, 0) > 1)
    if lost or twice:
        run.differs(call, path, f"of {len(expected)} {len(lost)} are lost: {lost[:5]}, {len(twice)} there more than once: "
                                f"{twice[:5]}")


def listing(run):
    """Big directories, read slowly and again from the middle."""
    path, names = os.path.join(run.top, "listed"), set(dataset.LISTED)
    list_slowly(run, path, names)
    compare_names(run, "listdir", path, run("listdir", path), names)
