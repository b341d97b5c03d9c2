# SPDX-License-Identifier: Apache-2.0
"""Workloads that write into files: appended lines, direct I/O, locks, files without a name."""

import fcntl
import mmap
import os
import time

from storm.reading import list_slowly
from storm.run import first_difference

BLOCK = 4096


def append(run):
    """Several writers with O_APPEND on one file: each line is there once, whole, and in its writer's order."""
    d = run.fresh()
    path, count, writers = os.path.join(d, "log"), 120, 3
    run.write_file(path, b"")

    def line(writer, i):
        return b"%d %d %s\n" % (writer, i, b"x" * ((i * 37 + writer) % 300 if i % 20 else 9000))

    def writer_of(number):
        def writer():
            fd = run("open", path, os.O_WRONLY | os.O_APPEND)
            for i in range(count):
                run.equal("write", path, run("write", fd, line(number, i)), len(line(number, i)))
            run("close", fd)
        return writer

    run.together(*(writer_of(n) for n in range(writers)))
    seen = {n: [] for n in range(writers)}
    for text in run.read_file(path).splitlines(keepends=True):
        parts = text.split(b" ")
        if len(parts) != 3 or not parts[0].isdigit() or not parts[1].isdigit() or int(parts[0]) not in seen \
                or text != line(int(parts[0]), int(parts[1])):
            run.differs("O_APPEND write", path, f"a line in pieces: {text[:60]!r}")
        seen[int(parts[0])].append(int(parts[1]))
    for number, order in seen.items():
        lost, twice = sorted(set(range(count)) - set(order)), sorted({i for i in order if order.count(i) > 1})
        if order != list(range(count)):
            run.differs("O_APPEND write", path,
                        f"writer {number}: lost {lost[:5]}, more than once {twice[:5]}, or in disorder")
    run.remove(d)


def direct(run):
    """Writers with O_DIRECT, each on its part of one file; the page cache then shows what they wrote."""
    d = run.fresh()
    path, blocks, writers = os.path.join(d, "direct"), 128, 2
    run.write_file(path, b"")

    def pattern(number):
        return (b"%08d" % number) * (BLOCK // 8)

    def writer_of(number):
        def writer():
            fd = run("open", path, os.O_RDWR | os.O_DIRECT)
            order = list(range(number, blocks, writers))
            run.rng.shuffle(order)
            buffer = mmap.mmap(-1, BLOCK)
            for block in order:
                buffer[:] = pattern(block)
                run.equal("pwritev O_DIRECT", path, run("pwritev", fd, [buffer], block * BLOCK), BLOCK)
                buffer[:] = b"\0" * BLOCK
                run.equal("preadv O_DIRECT", path, run("preadv", fd, [buffer], block * BLOCK), BLOCK)
                if buffer[:] != pattern(block):
                    run.differs(f"preadv O_DIRECT block {block}", path, first_difference(buffer[:], pattern(block)))
            run("fsync", fd)
            run("close", fd)
        return writer

    run.together(*(writer_of(n) for n in range(writers)))
    found, expected = run.read_file(path), b"".join(pattern(n) for n in range(blocks))
    if found != expected:
        run.differs("read after O_DIRECT writes", path, first_difference(found, expected))
    run.remove(d)


def locks(run):
    """A counter that is read and raised under a lock, flock(2) and fcntl(2) in turn."""
    d = run.fresh()
    path, turns, processes = os.path.join(d, "counter"), 150, 3
    lock = fcntl.flock if run.number % 2 else fcntl.lockf
    run.write_file(path, b"%08d" % 0)

    def one():
        fd = run("open", path, os.O_RDWR)
        for _ in range(turns):
            run.do(f"{lock.__name__} LOCK_EX", path, lock, fd, fcntl.LOCK_EX)
            value = run.decimal("pread", path, run("pread", fd, 8, 0))
            run.equal("pwrite", path, run("pwrite", fd, b"%08d" % (value + 1), 0), 8)
            run.do(f"{lock.__name__} LOCK_UN", path, lock, fd, fcntl.LOCK_UN)
        run("close", fd)

    run.together(*[one] * processes)
    run.equal(f"counter under {lock.__name__}", path, run.read_file(path), b"%08d" % (turns * processes))
    run.remove(d)


class Nameless:
    """An open file that nobody finds any more, and what it has to hold."""

    def __init__(self, run, path, how):
        self.run, self.expected = run, bytearray()
        if how == "O_TMPFILE":
            self.fd = run("open", os.path.dirname(path), os.O_TMPFILE | os.O_RDWR, 0o600)
        else:
            self.fd = run("open", path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            if how == "renamed over":
                run.write_file(path + ".other", b"other")
                run("rename", path + ".other", path)
            run("unlink", path)
        self.path = f"{path} ({how})"

    def change(self):
        rng, size = self.run.rng, len(self.expected)
        offset, data = rng.randrange(size + 3000), rng.randbytes(rng.randrange(1, 20000))
        if rng.random() < 0.2:
            self.run("ftruncate", self.fd, offset)
            del self.expected[offset:]
            self.expected += b"\0" * (offset - len(self.expected))
            return
        self.run.equal("pwrite", self.path, self.run("pwrite", self.fd, data, offset), len(data))
        self.expected += b"\0" * (offset + len(data) - size)
        self.expected[offset:offset + len(data)] = data

    def check(self):
        st = self.run("fstat", self.fd)
        self.run.equal("fstat of an open file without a name: st_nlink, st_size", self.path, (st.st_nlink, st.st_size),
                       (0, len(self.expected)))
        found = self.run("pread", self.fd, len(self.expected) + 1, 0)
        if found != self.expected:
            self.run.differs("pread of an open file without a name", self.path, first_difference(found, self.expected))


def unlinked(run):
    """Files that are read and written on after their last name has gone."""
    d = run.fresh()
    files = [Nameless(run, os.path.join(d, f"f{i}"), how)
             for i, how in enumerate(("unlinked", "renamed over", "O_TMPFILE", "unlinked"))]
    run("rmdir", d)
    for i in range(120):
        file = run.rng.choice(files)
        file.change()
        file.check()
        if i % 10 == 0:
            run("posix_fadvise", file.fd, 0, 0, os.POSIX_FADV_DONTNEED)
            time.sleep(0.01)  # somebody may die meanwhile
        if i % 40 == 0:
            run("fsync", file.fd)
    for file in files:
        file.check()
        run("close", file.fd)


def churn(run):
    """A directory that is listed while names in it come and go: those that stay are there exactly once."""
    d = run.fresh()
    stay = {f"stays-{i:04}" for i in range(500)}
    for name in stay:
        run.write_file(os.path.join(d, name), b"")

    def come_and_go():
        for i in range(150):
            run.write_file(os.path.join(d, f"goes-{i}"), b"")
            if i >= 20:
                run("unlink", os.path.join(d, f"goes-{i - 20}"))

    def look():
        for _ in range(3):
            list_slowly(run, d, stay)

    run.together(come_and_go, look)
    run.remove(d)
