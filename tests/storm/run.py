# SPDX-License-Identifier: Apache-2.0
"""What a workload is written in.

A workload makes its calls through Run, which notes each before it begins, so that whoever watches can say what a hung
process hangs in, and reports each that fails with its name, path and errno. A call that fails ends the round; the next round
begins in a directory of its own. Reports are lines of JSON in one file per workload, appended whole, so that children of a
workload report themselves.
"""

import errno
import json
import mmap
import os
import random
import select
import signal
import subprocess
import time
import traceback

REPORTS_MAX = 25  # then the workload gives up
MARKER_SIZE = 2048
CALL_LIMIT_S, COMMAND_LIMIT_S = 30, 90
SCALE = max(1.0, float(os.environ.get("HOLDFAST_TEST_DEADLINE", "120")) / 120)  # sanitizers are slow


class Failed(Exception):
    """A call failed, or did something else than it should have. It has been reported."""


class Run:
    def __init__(self, name, directory, scratch, seed):
        self.name, self.top, self.scratch = name, str(directory), str(scratch)
        self.rng = random.Random(f"{name} {seed}")
        self.number = 0
        self._paths = {}
        self._reports = os.open(report_path(scratch, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._open_marker()

    # what it is doing right now

    def _open_marker(self):
        self._marker_path = os.path.join(self.scratch, f"{self.name}.{os.getpid()}.now")
        with open(self._marker_path, "w+b") as f:
            f.truncate(MARKER_SIZE)
            self._marker = mmap.mmap(f.fileno(), MARKER_SIZE)

    def mark(self, what, limit=CALL_LIMIT_S):
        """The process does this now; it hangs if that takes longer than the limit. None: it may take any time."""
        until = "0" if limit is None else f"{time.monotonic() + limit * SCALE:.3f}"
        line = f"{until} {self.short_path(what)}\n".encode(errors="replace")[:MARKER_SIZE - 1] + b"\0"
        self._marker[:len(line)] = line

    def close(self):
        os.unlink(self._marker_path)

    # calls

    def do(self, what, path, function, *args, **kw):
        """Call the function; an OSError is a failed call."""
        self.mark(f"{what} {path}")
        try:
            return function(*args, **kw)
        except OSError as e:
            return self.failed(what, path, e)

    def __call__(self, name, *args, **kw):
        """os.NAME(...), with the path in the report even where the call has a descriptor."""
        subject = args[0] if args else ""
        path = self._paths.get(subject, subject) if isinstance(subject, int) else subject
        value = self.do(name, path, getattr(os, name), *args, **kw)
        if name == "open":
            self._paths[value] = subject
        elif name == "close":
            self._paths.pop(subject, None)
        return value

    def read_file(self, path):
        fd = self("open", path, os.O_RDONLY)
        parts = []
        while part := self("read", fd, 1 << 17):
            parts.append(part)
        self("close", fd)
        return b"".join(parts)

    def write_file(self, path, content, flags=os.O_CREAT | os.O_EXCL, mode=0o644):
        fd = self("open", path, os.O_WRONLY | flags, mode)
        self.equal("write", path, self("write", fd, content), len(content))
        self("close", fd)

    def remove(self, directory):
        """Take a whole tree away."""
        for name in self("listdir", directory):
            path = os.path.join(directory, name)
            if os.path.isdir(path) and not os.path.islink(path):
                self.remove(path)
            else:
                self("unlink", path)
        self("rmdir", directory)

    def command(self, *argv, env=None, limit=COMMAND_LIMIT_S):
        """Run a program that has to succeed and to say nothing on stderr. Its standard output."""
        argv = [str(a) for a in argv]
        self.mark(" ".join(argv), limit)
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env={**os.environ, **(env or {})})
        if done.returncode != 0 or done.stderr:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            self.report("failed", " ".join(argv[:4]), argv[-1], f"exit code {done.returncode}: {said[-1200:]}")
        return done.stdout

    # what came of them

    def equal(self, what, path, found, expected):
        if found != expected:
            self.differs(what, path, f"found {short(found)}, expected {short(expected)}")

    def decimal(self, what, path, text):
        """What should be decimal digits, as a number."""
        return int(text) if text.isdigit() else self.differs(what, path, f"found {short(text)}, expected a number")

    def failed(self, what, path, e):
        self.report("failed", what, path, errno.errorcode.get(e.errno, str(e)) if isinstance(e, OSError) else repr(e))

    def differs(self, what, path, how):
        self.report("difference", what, path, how)

    def report(self, kind, what, path, text):
        """One line to the report, and the end of the round."""
        facts = (self.short_path(str(fact)) for fact in (what, path, text))
        self._line({"kind": kind, "workload": self.name, **dict(zip(("call", "path", "text"), facts))})
        raise Failed(f"{what} {path}: {text}")

    def short_path(self, text):
        return text.replace(self.top + "/", "").replace(self.scratch, "SCRATCH")

    def _line(self, entry):
        os.write(self._reports, json.dumps(entry).encode() + b"\n")

    # processes and rounds

    def together(self, *functions):
        """Each function in a process of its own, all at once; the round ends when one has failed."""
        children = {}
        for function in functions:
            pid = os.fork()
            if pid == 0:
                os._exit(self._be_child(function))
            children[pid] = function.__name__
        self.mark("wait for its children", None)
        ended = {pid: os.waitpid(pid, 0)[1] for pid in children}
        for pid, status in ended.items():
            if os.WIFSIGNALED(status):
                _, doing = read_marker(os.path.join(self.scratch, f"{self.name}.{pid}.now"))
                how = f"died of {signal.Signals(os.WTERMSIG(status)).name}"
                self.report("failed", f"{doing} in {children[pid]}", "", how)
        if any(ended.values()):
            raise Failed("a child has reported")

    def _be_child(self, function):
        try:
            self._open_marker()
            self.rng = random.Random(f"{self.rng.random()} {os.getpid()}")
            function()
            return 0
        except Failed:
            return 1
        except BaseException:
            self._line(broken(self.name))
            return 1
        finally:
            self.close()

    def fresh(self):
        """A new directory on the volume for this round."""
        path = os.path.join(self.top, f"{self.name}-{self.number}")
        self("mkdir", path)
        return path

    def stopped(self):
        return bool(select.select([0], [], [], 0)[0])

    def rounds(self, one_round):
        """Until the standard input ends, but one round at least. Ends early when nearly everything fails."""
        failures = good = 0
        while True:
            self.number += 1
            try:
                one_round(self)
                good += 1
            except Failed:
                failures += 1
            except BaseException:
                self._line(broken(self.name))
                failures += 1
            for fd in list(self._paths):  # what a failed round left open
                os.close(fd)
            self._paths.clear()
            if self.stopped() or failures >= REPORTS_MAX:
                break
        self._line({"kind": "end", "workload": self.name, "rounds": good})
        self.close()


def broken(name):
    text = traceback.format_exc()[-1500:]
    return {"kind": "failed", "workload": name, "call": "the workload itself", "path": "", "text": text}


def report_path(scratch, name):
    return os.path.join(str(scratch), f"{name}.report")


def read_marker(path):
    """When what the process does has to be over (0: never), and what that is."""
    try:
        with open(path, "rb") as f:
            until, _, what = f.read().split(b"\0")[0].partition(b" ")
        return float(until or 0), what.decode(errors="replace").strip()
    except (OSError, ValueError):
        return 0.0, ""


def short(value):
    text = repr(value)
    return text if len(text) < 200 else f"{text[:160]}... ({len(value) if hasattr(value, '__len__') else '?'} long)"


def first_difference(found, expected):
    """Of two byte strings, in words."""
    if len(found) != len(expected):
        return f"{len(found)} bytes, expected {len(expected)}"
    at = next(i for i, (a, b) in enumerate(zip(found, expected)) if a != b)
    return f"at {at}: {found[at:at + 16].hex()}, expected {expected[at:at + 16].hex()}"
