# SPDX-License-Identifier: Apache-2.0
"""Workloads that make, rename and remove names: each call succeeds once, and only once."""

import ctypes
import errno
import os
import pathlib
import random
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "functional"))

import random_operations  # noqa: E402

AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE = -100, 1, 2
libc = ctypes.CDLL(None, use_errno=True)


def renameat2(run, old, new, flags):
    def call():
        if libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags) != 0:
            raise OSError(ctypes.get_errno(), "renameat2")
    run.do(f"renameat2 flags {flags}", f"{old} -> {new}", call)


def names(run):
    """Calls that fail when they are executed twice, one after the other."""
    d = run.fresh()
    a, b, c, sub = (os.path.join(d, n) for n in ("a", "b", "c", "sub"))
    for i in range(60):
        run("mkdir", sub)
        run.write_file(a, b"one", os.O_CREAT | os.O_EXCL)
        run("link", a, b)
        run.equal("st_nlink", a, run("lstat", a).st_nlink, 2)
        run("symlink", "pointee", c)
        run.equal("readlink", c, run("readlink", c), "pointee")
        run("setxattr", a, "user.once", b"1", os.XATTR_CREATE)
        run("setxattr", a, "user.once", b"2", os.XATTR_REPLACE)
        run.equal("getxattr", a, run("getxattr", b, "user.once"), b"2")
        run("removexattr", a, "user.once")
        run("rename", c, os.path.join(sub, "c"))
        renameat2(run, b, c, RENAME_NOREPLACE)
        renameat2(run, a, sub, RENAME_EXCHANGE)
        renameat2(run, a, sub, RENAME_EXCHANGE)
        run.equal("listdir", d, sorted(run("listdir", d)), ["a", "c", "sub"])
        run("unlink", os.path.join(sub, "c"))
        run("mknod", b, 0o140640)
        for name in (a, b, c):
            run("unlink", name)
        run("rmdir", sub)
        run.equal("listdir", d, run("listdir", d), [])
    run("rmdir", d)


def _model(run, function, count):
    d, plain = run.fresh(), os.path.join(run.scratch, f"{run.name}-plain-{run.number}")
    os.mkdir(plain)
    seed = run.rng.randrange(1 << 30)
    try:
        function(d, plain, random.Random(seed), count, run.mark)
    except random_operations.Different as e:
        run.differs(f"{function.__name__} seed {seed}", d, str(e))
    except OSError as e:
        run.failed(f"{function.__name__} seed {seed}", e.filename, e)
    finally:
        shutil.rmtree(plain)
    run.remove(d)


def model_tree(run):
    """Random operations on a tree of names, against a plain directory."""
    _model(run, random_operations.run_tree, 1500)


def model_file(run):
    """Random operations on one file, against a plain one."""
    _model(run, random_operations.run_file, 400)


def exclusive(run):
    """A lock file made by O_EXCL, which just one of several has at a time."""
    d = run.fresh()
    lock, counter = os.path.join(d, "lock"), os.path.join(d, "counter")
    run.write_file(counter, b"0")
    turns = 60

    def one():
        for _ in range(turns):
            fd = _take(run, lock)
            value = run.decimal("read", counter, run.read_file(counter))
            run.write_file(counter + ".new", str(value + 1).encode(), os.O_CREAT | os.O_EXCL)
            run("rename", counter + ".new", counter)
            run("close", fd)
            run("unlink", lock)

    run.together(one, one, one)
    run.equal("counter", counter, run.read_file(counter), str(3 * turns).encode())
    run.remove(d)


def _take(run, lock):
    """Waits for the lock, as long as others may have it."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        run.mark(f"open O_EXCL {lock}")
        try:
            return os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except OSError as e:
            if e.errno != errno.EEXIST:
                run.failed("open O_EXCL", lock, e)
        time.sleep(0.001)
    return run.differs("open O_EXCL", lock, "EEXIST for 20 s, though nobody has made it: a call was executed twice")
