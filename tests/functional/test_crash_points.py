# SPDX-License-Identifier: Apache-2.0
"""A worker dies at each step of each operation: result and tree are as on a plain directory, and nothing is left over.

The steps are the crash points of a build with -Dcrash_points=true (fuse/crash.h); which operation comes to which of
them is the matrix in crash_cases.py. Of a combination that can't occur it is asserted that it did not.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest

import control
import crash_cases
from crash_cases import CASES, MODES, POINTS, Opened, make_tree, outcome
from harness import BUILD, AccessMode, eventually
from ledger import NOTHING, Ledger
from random_operations import walk

SYS_FSCONFIG, SYS_FSPICK, FSCONFIG_CMD_RECONFIGURE, AT_FDCWD = 431, 433, 7, -100

libc = ctypes.CDLL(None, use_errno=True)


def test_the_build_has_crash_points():
    """Without them every other test here would only see that nothing happens."""
    out = subprocess.run(["meson", "introspect", "--buildoptions", str(BUILD)], check=True, capture_output=True).stdout
    assert next(option for option in json.loads(out) if option["name"] == "crash_points")["value"] is True


class Rig:
    """A volume whose workers die where the crash file says, and a plain directory beside it."""

    def __init__(self, node, mode, **attributes):
        self.node, self.crash_file = node, node.base / "crash"
        self.read_only = mode == "upcall-free"
        node.keeper.env["HOLDFAST_CRASH_FILE"] = str(self.crash_file)
        node.start()
        self.plain = node.base / "plain"
        self.plain.mkdir()
        self.attributes = {"mode": mode, "entryTimeout": "1h", "attrTimeout": "0s", **attributes}
        self.count, self.ledger, self.volume = 0, None, None
        self.connect()

    def connect(self):
        """A volume on a connection of its own."""
        self.count += 1
        if self.volume:
            self.ledger.close()
            self.volume.down()
        self.source = self.node.make_source(f"data{self.count}")
        access = AccessMode.MULTI_NODE_READER_ONLY if self.read_only else AccessMode.SINGLE_NODE_MULTI_WRITER
        self.volume = self.node.volume(f"data{self.count}", access=access, attributes=self.attributes)
        self.target = self.volume.up()
        self.ledger = Ledger(self.node.keeper.pid, self.volume.id)

    def directories(self, n_many=0):
        """A new tree of files: where it is on the source, on the volume, and its double."""
        self.count += 1
        name = f"d{self.count}"
        for top in (self.source, self.plain):
            make_tree(top / name, n_many)
        return self.source / name, self.target / name, self.plain / name

    def status(self):
        return control.listing(self.node.run_dir)[self.volume.id]

    def restarts(self):
        return self.status().restarts

    def pending(self):
        return self.crash_file.read_text() if self.crash_file.exists() else ""

    def crash_at(self, *lines):
        new = self.crash_file.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.rename(self.crash_file)

    def forget_all(self):
        """The kernel forgets what nobody uses: on a reconfiguration it drops the dentries of this one superblock."""
        fd = libc.syscall(SYS_FSPICK, AT_FDCWD, str(self.target).encode(), 0)
        assert fd >= 0, os.strerror(ctypes.get_errno())
        try:
            r = libc.syscall(SYS_FSCONFIG, fd, FSCONFIG_CMD_RECONFIGURE, None, None, 0)
            assert r == 0, os.strerror(ctypes.get_errno())
        finally:
            os.close(fd)

    def settled(self):
        """The ledger once nothing is on its way any more."""
        def still():
            before = self.ledger.state()
            if self.status().waiting or before["inboxes"]:
                return None
            time.sleep(0.05)
            return before if self.ledger.state() == before and not self.status().waiting else None
        return eventually(still, what="quiet")

    def becomes(self, state, what):
        try:
            eventually(lambda: self.ledger.state() == state, timeout=10, what=what)
        except AssertionError as e:
            raise AssertionError(f"{what}: {self.ledger.state()} instead of {state}") from e

    def check_no_leak(self):
        self.forget_all()
        self.becomes(NOTHING, "nothing is left over")


def is_stopped(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False


def run_with_race(rig, case, source, call):
    """The source changes between the kernel's look and the worker's: the worker stops at after-read meanwhile."""
    result = []
    thread = threading.Thread(target=lambda: result.append(outcome(*call)))
    thread.start()
    pid = eventually(lambda: next((p for p in rig.node.workers() if is_stopped(p)), None), what="a stopped worker")
    case.race(str(source))
    os.kill(pid, signal.SIGCONT)
    thread.join(60)
    return result[0]


def lines_for(case, points):
    """The crash file: with a race it also says where the worker stops for it, once it has not died before."""
    lines = [f"{point} {case.opcode}" for point in points]
    if case.race:
        at = next((i for i, point in enumerate(points) if point != "after-read"), len(points))
        lines.insert(at, f"after-read {case.opcode} stop")
    return lines


@contextlib.contextmanager
def opened(case, directory):
    """The case's arguments."""
    held = [os.open(directory, os.O_PATH)]
    if case.opens:
        held.append(os.open(directory / case.opens[0], case.opens[1]))
    try:
        yield [case.act, str(directory), *held[1:]]
    finally:
        for fd in held:
            os.close(fd)


def close_result(result):
    if isinstance(result, Opened):
        os.close(result.fd)


def check_usable(rig, directory):
    """The next operations work."""
    assert (directory / "l").lstat()
    if not rig.read_only:
        (directory / "next").write_bytes(b"next")
        assert (directory / "next").read_bytes() == b"next"
        os.unlink(directory / "next")
    assert os.listdir(directory)


def run(rig, case, points, expected, left=()):
    """One case with a death at each of these points, or none. Returns what the ledger says after it; `expected` is what
    it has to say, `left` the points that are never come to."""
    source, on_volume, on_plain = rig.directories(case.many)
    before = rig.restarts()
    with opened(case, on_volume) as call, opened(case, on_plain) as plain_call:
        if case.race:
            case.race(str(on_plain))
        rig.crash_at(*lines_for(case, [*points, *left]))
        result = run_with_race(rig, case, source, call) if case.race else outcome(*call)
        plain_result = outcome(*plain_call)
        assert result == plain_result
        remaining = "".join(f"{point} {case.opcode}\n" for point in left)
        eventually(lambda: rig.pending() == remaining and rig.restarts() == before + len(points), timeout=10,
                   what=f"{len(points)} deaths ({rig.restarts() - before} so far, '{rig.pending()}' to come)")
        state = rig.settled()
        assert expected is None or state == expected
        assert rig.pending() == remaining and rig.restarts() == before + len(points)
        rig.crash_file.unlink(missing_ok=True)
        assert walk(on_volume) == walk(source) == walk(on_plain)
        check_usable(rig, on_volume)
        close_result(result)
        close_result(plain_result)
    rig.check_no_leak()
    return state


def run_matrix(rig, case, reached):
    expected = run(rig, case, [], None)
    for point in POINTS:
        points, left = ([point], []) if point in reached else ([], [point])
        try:
            run(rig, case, points, expected, left)
        except Exception as e:
            raise AssertionError(f"{case.name}, death at {point}: {e}") from e


@pytest.mark.parametrize("mode,name", [(mode, name) for name in CASES for mode in MODES])
def test_a_death_at_any_point_goes_unnoticed(bare_node, mode, name):
    run_matrix(Rig(bare_node, mode), CASES[name], CASES[name].points_in(mode))


@pytest.mark.parametrize("name", crash_cases.READING)
def test_a_death_goes_unnoticed_where_opens_do_not_come_to_the_worker(bare_node, name):
    case = CASES[name]
    rig = Rig(bare_node, "upcall-free", consistency="immutable", attrTimeout="0s")
    points = case.points if not isinstance(case.points, dict) else case.points["worker"]
    run_matrix(rig, case, points)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("opcode", [crash_cases.OPEN, crash_cases.OPENDIR, crash_cases.FLUSH, crash_cases.LOOKUP])
def test_what_is_asked_only_once_a_connection(bare_node, opcode, point):
    """The first OPEN, OPENDIR and FLUSH of an upcall-free volume are answered that there is no need for more."""
    rig = Rig(bare_node, "upcall-free", consistency="immutable")
    _, on_volume, on_plain = rig.directories()
    reached = crash_cases.ENTRY if opcode == crash_cases.LOOKUP else crash_cases.PLAIN
    rig.crash_at(f"{point} {opcode}")
    assert (on_volume / "f").read_bytes() == (on_plain / "f").read_bytes()
    assert sorted(os.listdir(on_volume)) == sorted(os.listdir(on_plain))
    eventually(lambda: (rig.restarts(), bool(rig.pending())) == ((1, False) if point in reached else (0, True)),
               what="a death, or none")
    assert walk(on_volume) == walk(on_plain)
    rig.check_no_leak()


def forget(rig, directory, n):
    """Has the kernel forget n files in one request, while the directory stays."""
    for i in range(n):
        os.lstat(directory / "many" / f"a-name-of-some-length-{i:04}")
    worker = rig.volume.worker()
    os.kill(worker, signal.SIGSTOP)  # so that it finds them all at once
    eventually(lambda: is_stopped(worker), what="a stopped worker")
    rig.forget_all()
    os.kill(worker, signal.SIGCONT)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("opcode,n", [(crash_cases.FORGET, 1), (crash_cases.BATCH_FORGET, 20)])
@pytest.mark.parametrize("mode", MODES)
def test_a_death_over_what_the_kernel_forgets(bare_node, mode, opcode, n, point):
    rig = Rig(bare_node, mode)
    _, on_volume, _ = rig.directories(n)
    held = os.open(on_volume / "many", os.O_PATH)
    kept = rig.settled()
    reached = point in crash_cases.FORGETS
    # each record of a batch is come to: two deaths over one request, the second on the way of the replay
    deaths = 2 if point == "in-record" and n > 1 else 1 if reached else 0
    rig.crash_at(*[f"{point} {opcode}"] * max(deaths, 1))
    forget(rig, on_volume, n)
    eventually(lambda: rig.restarts() == deaths and bool(rig.pending()) == (not reached), what=f"{deaths} deaths")
    rig.becomes(kept, "what is held stays, the rest is gone")
    os.close(held)
    assert (on_volume / "f").read_bytes() == b"content"
    rig.check_no_leak()


def poison(rig, directory, how="abort"):
    """A SETATTR whose every worker dies over it; what the caller gets."""
    rig.crash_at(*[f"after-read {crash_cases.SETATTR} {how}"] * 200)
    result = outcome(os.chmod, directory / "f", 0o600)
    rig.crash_file.unlink()
    return result


def check_poison(rig, node, deaths=3):
    header = rig.ledger.header()
    assert (header.poisoned, header.poison_opcode) == (1, crash_cases.SETATTR)
    assert header.poison_nodeid == node
    assert f"opcode {crash_cases.SETATTR}, node {node:#x}" in rig.node.keeper.text()
    assert rig.restarts() == deaths


def node_of(rig, path):
    """The node id of a file that the kernel knows."""
    ino = path.stat().st_ino
    return next(n.generation << 32 | i for i, n in rig.ledger.nodes().items() if n.ino == ino)


@pytest.mark.parametrize("mode", MODES)
def test_a_request_that_kills_three_workers_fails_alone(bare_node, mode):
    rig = Rig(bare_node, mode)
    source, on_volume, _ = rig.directories()
    assert (on_volume / "f").read_bytes() == b"content"
    node = node_of(rig, source / "f")
    stop, failures, calls = threading.Event(), [], [0, 0, 0]

    def go_on(i):
        name = on_volume / f"busy{i}"
        while not stop.is_set():
            try:
                name.mkdir()
                os.setxattr(name, "user.a", b"x", os.XATTR_CREATE)
                assert os.listdir(name) == []
                name.rmdir()
                calls[i] += 1
            except Exception as e:
                failures.append(repr(e))
                return
    threads = [threading.Thread(target=go_on, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    assert poison(rig, on_volume) == "EIO"
    done = list(calls)
    eventually(lambda: failures or all(n > before + 3 for n, before in zip(calls, done)), what="the others to go on")
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    check_poison(rig, node)
    assert (source / "f").stat().st_mode & 0o777 == 0o644
    os.chmod(on_volume / "f", 0o600)
    assert (source / "f").stat().st_mode & 0o777 == 0o600
    rig.check_no_leak()


def test_a_request_over_which_workers_kill_themselves_fails_too(bare_node):
    """SIGKILL says less about a request than abort(3): it may take more than three of them."""
    rig = Rig(bare_node, "worker")
    _, on_volume, _ = rig.directories()
    assert poison(rig, on_volume, "kill") == "EIO"
    assert rig.ledger.header().poisoned == 1
    rig.check_no_leak()


def test_requests_that_were_in_hand_at_the_same_moment_are_not_blamed(bare_node):
    """Opens that wait for a lease on the source's files are in hand at the first death, and done before the second."""
    rig = Rig(bare_node, "worker")
    source, on_volume, _ = rig.directories(n_many=3)
    names = sorted(os.listdir(on_volume / "many"))
    os.lstat(on_volume / "f")
    node = node_of(rig, source / "f")
    leases = [os.open(source / "many" / name, os.O_RDWR) for name in names]
    previous = signal.signal(signal.SIGIO, signal.SIG_IGN)  # it says that a lease is broken
    try:
        for fd in leases:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        results = []
        threads = [threading.Thread(target=lambda n=n: results.append(outcome(read_file, on_volume / "many" / n)))
                   for n in names]
        for thread in threads:
            thread.start()
        in_hand = lambda: sum(t.opcode == crash_cases.OPEN and t.since_ns > 0 for t in rig.ledger.header().threads)
        eventually(lambda: in_hand() == len(names), what="all of them in hand")
        poisoned = threading.Thread(target=lambda: results.append(poison(rig, on_volume)))
        poisoned.start()
        eventually(lambda: rig.restarts() >= 1, what="the first death")
    finally:
        for fd in leases:
            os.close(fd)
    for thread in [*threads, poisoned]:
        thread.join(60)
    signal.signal(signal.SIGIO, previous)
    assert sorted(results) == ["", "", "", "EIO"]
    check_poison(rig, node)
    rig.check_no_leak()


def read_file(path):
    return path.read_text()


def again_after(point, points):
    """The points that a request comes to when it runs again after a death at `point`."""
    passed = {
        "after-read": set(),
        "after-intent": {"after-intent"},  # it is not begun twice
        "after-call": {"after-intent"},  # the result is found out and written down
        "after-result": {"after-intent", "after-call", "after-result"},
        "in-record": {"after-intent", "after-call", "after-result"},
        "before-reply": {"after-intent", "after-call", "after-result"},
        "after-reply": set(POINTS),  # it does not run again
    }
    return points - passed[point]


@pytest.mark.parametrize("mode,name", [(mode, name) for name, case in CASES.items() for mode in MODES
                                       if case.changes_names(mode)])
def test_two_deaths_over_one_request_go_unnoticed(bare_node, mode, name):
    case = CASES[name]
    rig, reached = Rig(bare_node, mode), case.points_in(mode)
    expected = run(rig, case, [], None)
    for first in (p for p in POINTS if p in reached):
        for second in POINTS:
            can_be = second in again_after(first, reached)
            try:
                run(rig, case, [first, second] if can_be else [first], expected, [] if can_be else [second])
            except Exception as e:
                raise AssertionError(f"{name}, deaths at {first} and {second}: {e}") from e
