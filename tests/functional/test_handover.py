# SPDX-License-Identifier: Apache-2.0
"""Planned restarts are no deaths: a keeper hands over to another one, or executes itself anew, and nobody notices."""

import errno
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import control
from control import Control
from harness import BUILD, PATIENCE, AccessMode, Daemon, eventually
from test_escrow import Load

READ_WRITE = AccessMode.SINGLE_NODE_MULTI_WRITER
CONTENT = random.Random(9).randbytes(4 << 20)
LEDGER = 2


class Upgrade:
    """A node whose keeper and worker are files of its own, so that they can be replaced."""

    def __init__(self, node):
        self.node = node
        self.programs = node.base / "bin"
        self.programs.mkdir()
        for name in ("holdfast-keeper", "holdfast-fuse"):
            shutil.copy(BUILD / name, self.programs / name)
        self.keeper = self.daemon("keeper.log")
        node.keeper = self.keeper

    def daemon(self, log):
        daemon = Daemon("holdfast-keeper", ["--run-dir", self.node.run_dir, "--worker", self.programs / "holdfast-fuse"],
                        self.node.base / log)
        daemon.path = self.programs / "holdfast-keeper"
        return daemon

    def start(self):
        self.node.start()
        return self

    def replace(self, name, content=None):
        """A new file in the place of a program, as an upgrade does it; by default another build of the same release."""
        new = self.programs / "new"
        new.write_bytes((BUILD / name).read_bytes() + b"another build" if content is None else content)
        new.chmod(0o755)
        new.rename(self.programs / name)

    def is_current(self, pid, name):
        return os.stat(f"/proc/{pid}/exe").st_ino == (self.programs / name).stat().st_ino

    def hang_up(self):
        """SIGHUP; returns once the keeper is executed anew."""
        n = self.keeper.text().count(" serves ")
        self.keeper.process.send_signal(signal.SIGHUP)
        eventually(lambda: self.keeper.text().count(" serves ") > n or self.node._died(self.keeper), what="the new image")

    def succeed(self):
        """Another keeper takes over; the one before has ended well."""
        before = self.keeper
        n = before.text().count(" serves ")
        self.keeper = self.daemon("keeper.log").start()
        eventually(lambda: self.keeper.text().count(" serves ") > n or self.node._died(self.keeper), what="the successor")
        assert before.process.wait(20) == 0
        self.node.keeper = self.keeper


@pytest.fixture
def upgrade(bare_node):
    return Upgrade(bare_node).start()


@pytest.fixture
def volume(upgrade):
    upgrade.node.make_source("data", {"big": CONTENT, "hello": "world\n"})
    return upgrade.node.volume("pv-1", upgrade.node.sources / "data", attributes={"mode": "worker"}, access=READ_WRITE)


def text_of(node):
    return node.keeper.text()


def comm(pid):
    return open(f"/proc/{pid}/comm").read().strip()


def is_served(volume):
    """Within the deadline of a call."""
    return (volume.target() / "hello").read_text() == "world\n" and volume.worker()


def refused_keeper(node, timeout=30):
    """A second keeper that does not come to serve; what it said."""
    done = subprocess.run([BUILD / "holdfast-keeper", "--run-dir", node.run_dir], capture_output=True, text=True,
                          timeout=timeout)
    assert done.returncode == 1 and "another keeper serves" in done.stderr, done.stderr
    return done.stderr


# nobody notices


def test_a_hundred_handovers_under_load(upgrade, volume):
    node, n = upgrade.node, 100 if PATIENCE == 1 else 20  # an emulator takes two seconds for each
    target = volume.up()
    dev = os.stat(target).st_dev
    (target / "dir").mkdir()
    for i in range(200):
        (target / "dir" / f"f{i:03}").write_text("")
    names = sorted(os.listdir(target / "dir"))
    held = os.open(target / "big", os.O_RDONLY)
    log = os.open(target / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    locked = open(target / "lock", "w")
    fcntl.flock(locked, fcntl.LOCK_EX)
    slowest = [0.0]

    def read(i):
        offset = random.Random(i).randrange(len(CONTENT) - 4096)
        os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(held, 4096, offset) == CONTENT[offset:offset + 4096]

    def open_read_close(i):
        began = time.monotonic()
        assert (target / "hello").read_text() == "world\n"
        slowest[0] = max(slowest[0], time.monotonic() - began)

    def append(i):
        assert os.write(log, b"%07d\n" % i) == 8

    def make_and_remove(i):
        os.mkdir(target / f"d{i}")
        (target / f"d{i}" / "file").write_text(str(i))
        os.rename(target / f"d{i}" / "file", target / f"d{i}" / "other")
        os.unlink(target / f"d{i}" / "other")
        os.rmdir(target / f"d{i}")

    def list_names(i):
        assert sorted(os.listdir(target / "dir")) == names

    def lock(i):
        with open(target / "lock") as other:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with Load(read, open_read_close, append, make_and_remove, list_names, lock) as load:
        for i in range(n):
            (upgrade.succeed if i % 2 else upgrade.hang_up)()
            load.goes_on()
    locked.close()
    os.close(held)
    os.close(log)
    written = (node.sources / "data" / "log").read_bytes()
    assert written == b"".join(b"%07d\n" % i for i in range(load.done[2]))
    complaints = [line for line in text_of(node).splitlines() if "level=warning" in line or "level=error" in line]
    assert volume.status()["restarts"] == n and os.stat(target).st_dev == dev, "\n".join(complaints)
    pauses = sorted(int(ms) for ms in re.findall(r"new worker serves after (\d+) ms", text_of(node)))
    print(f"\n{len(pauses)} handovers: p50 {pauses[len(pauses) // 2]} ms, max {pauses[-1]} ms until the next worker serves; "
          f"slowest open+read+close {slowest[0] * 1000:.0f} ms; calls: {load.done}")
    volume.down()
    node.is_clean()


@pytest.mark.parametrize("way", ("succeed", "hang_up"))
def test_many_volumes_go_over_at_once(upgrade, volume, way):
    volumes = [upgrade.node.volume(f"pv-{i}", upgrade.node.sources / "data") for i in range(20)]
    held = [open(v.up() / "big", "rb", buffering=0) for v in volumes]
    old = upgrade.node.workers()
    getattr(upgrade, way)()
    for f in held:
        assert f.read(4096) == CONTENT[:4096]
        f.close()
    eventually(lambda: len(upgrade.node.workers()) == 20 and not set(upgrade.node.workers()) & set(old), what="new workers")
    for v in volumes:
        assert is_served(v) and v.status()["reason"] == "it was replaced with its keeper"
        v.down()
    upgrade.node.is_clean()


def test_nothing_is_left_of_handovers(upgrade, volume):
    def kinds():
        links = [link.split("[")[0].split(":")[0] for link in upgrade.keeper.fds()]
        return sorted(link for link in links if link not in ("socket", "anon_inode"))

    volume.up()
    upgrade.hang_up()
    before = eventually(lambda: is_served(volume) and kinds(), what="a worker")
    for way in (upgrade.hang_up, upgrade.succeed, upgrade.succeed, upgrade.hang_up):
        way()
        assert is_served(volume)
        assert eventually(lambda: kinds() == before, what=f"{before}, not {kinds()}")
    status = f"/proc/{upgrade.keeper.pid}/task/{upgrade.keeper.pid}/children"
    eventually(lambda: len(open(status).read().split()) == 2, what="no more than a worker and one in store")
    assert "HOLDFAST_HANDOVER" not in open(f"/proc/{volume.worker()}/environ").read()


def test_calls_to_the_keeper_go_well_during_handovers(upgrade, volume):
    volume.up()

    def status(i):
        assert list(control.listing(upgrade.node.run_dir)) == ["pv-1"]

    with Load(status) as load:
        for i in range(20):
            (upgrade.succeed if i % 2 else upgrade.hang_up)()
            load.goes_on()


def test_volumes_come_and_go_during_handovers(upgrade, volume):
    """A handover waits for them; a call that kubelet would make again may be refused, but none is lost."""
    other = upgrade.node.volume("pv-2", upgrade.node.sources / "data", access=READ_WRITE)
    stop, failures = threading.Event(), []

    def insist(call):
        for _ in range(200):
            try:
                return call()
            except Exception as e:  # noqa: BLE001 (the last one is reported)
                last = e
                time.sleep(0.01)
        raise last

    def come_and_go():
        while not stop.is_set():
            try:
                insist(other.stage)
                insist(other.unstage)
            except Exception as e:  # noqa: BLE001 (reported below)
                failures.append(repr(e))
                return

    volume.up()
    thread = threading.Thread(target=come_and_go)
    thread.start()
    for i in range(10):
        (upgrade.succeed if i % 2 else upgrade.hang_up)()
        assert is_served(volume)
    stop.set()
    thread.join(30)
    assert failures == []
    volume.down()
    upgrade.node.is_clean()


def test_the_escrow_stays_whole(upgrade, volume):
    """Planned, planned, then killed: the plugin gives back what it holds as ever."""
    volume.up()
    upgrade.succeed()
    upgrade.hang_up()
    assert is_served(volume)
    said = "holdfast-keeper is gone; 1 of its volumes are in escrow"
    assert said not in upgrade.node.plugin.text()
    upgrade.keeper.kill()
    eventually(lambda: said in upgrade.node.plugin.text(), what="the plugin to notice")
    upgrade.keeper = upgrade.node.keeper = upgrade.daemon("keeper.log")
    upgrade.node.start_keeper()
    assert is_served(volume) and volume.status()["reason"] == "it went down with its keeper"


def test_a_new_keeper_starts_the_workers_that_are_there_now(upgrade, volume):
    volume.up()
    for way in ("hang_up", "succeed"):
        upgrade.replace("holdfast-keeper")
        upgrade.replace("holdfast-fuse")
        pid = volume.worker()
        assert not upgrade.is_current(upgrade.keeper.pid, "holdfast-keeper")
        volume.kill_worker()
        assert not upgrade.is_current(volume.worker(), "holdfast-fuse")  # not before somebody asks for it
        same = upgrade.keeper.pid
        getattr(upgrade, way)()
        assert (upgrade.keeper.pid == same) == (way == "hang_up")
        assert upgrade.is_current(upgrade.keeper.pid, "holdfast-keeper")
        assert is_served(volume) != pid and upgrade.is_current(volume.worker(), "holdfast-fuse")
        assert comm(upgrade.keeper.pid) == "holdfast-keeper" and comm(volume.worker()) == "holdfast-fuse"


def test_one_in_store_waits_while_another_serves(upgrade, volume):
    """--stand-by, as in a DaemonSet: the old pod's keeper serves again should the new pod go."""
    volume.up()
    first = upgrade.keeper
    first.stop()
    first.args.append("--stand-by")
    upgrade.node.start_keeper()
    assert is_served(volume)
    second = upgrade.daemon("second.log").start()
    eventually(lambda: "serves" in second.text(), what="the second keeper")
    eventually(lambda: "standing by" in first.text(), what="the first one to stand by")
    assert first.running() and is_served_by(volume, second)
    assert second.terminate() == 0
    assert is_served(volume) and is_served_by(volume, first)
    third = upgrade.daemon("third.log").start()
    eventually(lambda: "serves" in third.text(), what="the third keeper")
    assert is_served(volume) and is_served_by(volume, third)
    assert first.terminate() == 0
    assert is_served(volume) and is_served_by(volume, third)
    upgrade.keeper = upgrade.node.keeper = third


def is_served_by(volume, keeper):
    children = open(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read().split()
    return str(volume.worker()) in children


# the old one stays


def hello(c, version=control.VERSION):
    return c.call(control.header(control.HANDOVER, version=version) + control.config())


def offered(c):
    """All volumes of a handover that is under way: id -> descriptors."""
    c.send(control.request(control.HANDOVER))
    volumes = {}
    while True:
        reply = c.receive()
        assert reply.code == 0, reply.text
        if not reply.flags & control.MORE:
            assert reply.fds == []
            return volumes
        if reply.id:
            assert len(reply.fds) == 4
            volumes[reply.id] = reply.fds
        else:  # a client
            os.close(reply.fds.pop())
            assert reply.fds == []


def test_another_version_is_refused(upgrade, volume):
    volume.up()
    pid = volume.worker()
    with Control(upgrade.node.run_dir) as c:
        reply = hello(c, control.VERSION + 1)
        assert reply.code == -errno.EPROTONOSUPPORT and f"version {control.VERSION + 1}" in reply.text
        assert c.receive() is None
    assert is_served(volume) == pid


def test_a_keeper_of_another_version_is_not_taken_over(bare_node):
    """Played by us: it holds the lock, listens, and answers in its own version."""
    bare_node.run_dir.mkdir(mode=0o700)
    with open(bare_node.run_dir / "keeper.lock", "w") as lock, \
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        fcntl.flock(lock, fcntl.LOCK_EX)
        s.bind(str(bare_node.run_dir / "keeper.sock"))
        s.listen()

        def answer():
            peer, _ = s.accept()
            with peer:
                peer.recv(65536)
                peer.send(control.header(0, size=control.REPLY_SIZE, version=control.VERSION - 1)
                          + bytes(control.REPLY_SIZE - control.HEADER.size))

        thread = threading.Thread(target=answer)
        thread.start()
        said = refused_keeper(bare_node)
        thread.join()
    assert f"control protocol version {control.VERSION - 1}, this build speaks {control.VERSION}" in said


def test_a_keeper_that_hangs_is_not_taken_over(upgrade, volume):
    volume.up()
    os.kill(upgrade.keeper.pid, signal.SIGSTOP)
    said = refused_keeper(upgrade.node)
    os.kill(upgrade.keeper.pid, signal.SIGCONT)
    assert "did not answer in time" in said and is_served(volume)


def test_a_lock_that_somebody_else_holds(bare_node):
    bare_node.run_dir.mkdir(mode=0o700)
    with open(bare_node.run_dir / "keeper.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "--run-dir" in refused_keeper(bare_node)


def test_a_volume_that_the_next_one_can_not_read_stops_all(upgrade, volume):
    volume.up()
    other = upgrade.node.volume("pv-2", upgrade.node.sources / "data")
    other.up()
    ledger = control.escrow(upgrade.node.run_dir, "pv-2")[LEDGER]
    pids = volume.worker(), other.worker()
    os.pwrite(ledger, (99).to_bytes(4, "little"), 8)
    assert "version 99" in (said := refused_keeper(upgrade.node)) and "pv-2" in said
    upgrade.keeper.process.send_signal(signal.SIGHUP)
    eventually(lambda: "goes on as it is" in upgrade.keeper.text(), what="the refusal in the log")
    os.pwrite(ledger, (4).to_bytes(4, "little"), 8)
    assert pids == (is_served(volume), is_served(other))


def test_a_successor_that_goes_before_the_commit(upgrade, volume):
    volume.up()
    pid = volume.worker()
    for _ in range(3):
        with Control(upgrade.node.run_dir) as c:
            for fds in offered(c).values():
                for fd in fds:
                    os.close(fd)
    assert is_served(volume) == pid
    volume.down()
    volume.up()
    upgrade.succeed()
    assert is_served(volume)


def test_one_that_is_under_way_holds_the_others(upgrade, volume):
    volume.up()
    with Control(upgrade.node.run_dir) as early, Control(upgrade.node.run_dir) as c:
        assert early.call(control.request(control.MOUNT, "pv-1")).code == 0
        for fds in offered(c).values():
            for fd in fds:
                os.close(fd)
        early.send(control.request(control.MOUNT, "pv-1"))
        late = Control(upgrade.node.run_dir)
        late.send(control.request(control.MOUNT, "pv-1"))
        early.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            early.receive()
        early.socket.settimeout(20)
        c.socket.close()
        assert early.receive().code == 0 and late.receive().code == 0
        late.socket.close()
    assert is_served(volume)


def test_one_that_does_not_come_to_an_end_is_turned_away(upgrade, volume):
    volume.up()
    with Control(upgrade.node.run_dir) as c:
        offered(c)
        started = time.monotonic()
        assert control.listing(upgrade.node.run_dir)["pv-1"].state == control.SERVING
        assert 5 < time.monotonic() - started < 18
        assert c.receive() is None


def test_a_commit_without_a_handover_is_refused(upgrade, volume):
    volume.up()
    reply = control.call(upgrade.node.run_dir, control.request(control.HANDOVER_COMMIT))
    assert reply.code == -errno.EINVAL and reply.fds == [] and is_served(volume)


def test_a_successor_that_dies_after_the_commit(upgrade, volume):
    """The escrow has everything; the next keeper finds lock and socket free."""
    target = volume.up()
    first = upgrade.keeper
    with open(target / "big", "rb", buffering=0) as f:
        with Control(upgrade.node.run_dir) as c:
            for fds in offered(c).values():
                for fd in fds:
                    os.close(fd)
            reply = c.call(control.request(control.HANDOVER_COMMIT))
            assert reply.code == 0 and len(reply.fds) == 2
            for fd in reply.fds:
                os.close(fd)
        assert first.process.wait(20) == 0
        upgrade.keeper = upgrade.node.keeper = upgrade.daemon("keeper.log")
        upgrade.node.start_keeper()
        assert os.pread(f.fileno(), 4096, 1 << 20) == CONTENT[1 << 20:(1 << 20) + 4096]
    assert is_served(volume)
    volume.down()
    upgrade.node.is_clean()


def answers(run_dir):
    try:
        return control.listing(run_dir) is not None
    except (OSError, AttributeError):
        return False


def test_a_successor_that_is_killed_at_any_moment(upgrade, volume):
    dice = random.Random(5)
    volume.up()
    for _ in range(15):
        other = upgrade.daemon("keeper.log").start()
        time.sleep(dice.uniform(0, 0.03))
        other.kill()
        eventually(lambda: upgrade.keeper.process.poll() is not None or answers(upgrade.node.run_dir),
                   what="the keeper to end or to go on")
        if upgrade.keeper.process.poll() is not None:
            upgrade.keeper = upgrade.node.keeper = upgrade.daemon("keeper.log")
        if not upgrade.keeper.process:
            upgrade.node.start_keeper()
        assert is_served(volume)


BROKEN = {
    "fails": b"#!/bin/sh\nexit 1\n",
    "no program": b"garbage",
    "a program that says no": None,
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_program_file_is_not_executed(upgrade, volume, what):
    volume.up()
    pid = volume.worker()
    upgrade.replace("holdfast-keeper", BROKEN[what] or open("/bin/false", "rb").read())
    upgrade.keeper.process.send_signal(signal.SIGHUP)
    eventually(lambda: "goes on as it is" in upgrade.keeper.text(), what="the refusal in the log")
    assert "can't take over: exit code" in upgrade.keeper.text()
    assert is_served(volume) == pid
    upgrade.replace("holdfast-keeper")
    upgrade.hang_up()
    assert is_served(volume) != pid


def test_no_program_file_at_all(upgrade, volume):
    volume.up()
    (upgrade.programs / "holdfast-keeper").unlink()
    upgrade.keeper.process.send_signal(signal.SIGHUP)
    eventually(lambda: "goes on as it is: open" in upgrade.keeper.text(), what="the refusal in the log")
    assert is_served(volume)


def test_who_is_asked_changes_nothing(upgrade, volume):
    volume.up()
    pid = volume.worker()
    asked = [BUILD / "holdfast-keeper", "--run-dir", upgrade.node.run_dir, "--check-handover"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and "can take over 1 volumes" in done.stderr
    done = subprocess.run([*asked[:2], "/nonexistent/run", asked[3]], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "no holdfast-keeper answers" in done.stderr
    assert is_served(volume) == pid


# workers of another release


def worker_that_says_no(ledger_version):
    """The real worker, which finds another version in the ledger than it knows: its number is a constant in the code."""
    return f"""#!/usr/bin/python3 -IS
import os, socket, struct
s = socket.socket(fileno=3)
socket.recv_fds(s, 64, 4)
text = b"the ledger has version {ledger_version}, this build knows 99: stage the volume again"
s.send(struct.pack("=Ii240s", 1, -93, text))
os._exit(1)
""".encode()


def test_a_worker_of_another_release_is_tried_once_and_given_up(upgrade, volume):
    volume.up()
    pid = volume.worker()
    upgrade.replace("holdfast-fuse", worker_that_says_no(4))
    volume.kill_worker()
    assert is_served(volume) != pid  # an upgrade of files changes nothing
    before = volume.status()["restarts"]
    done = subprocess.run([BUILD / "holdfastctl", "--run-dir", upgrade.node.run_dir, "restart", "pv-1"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "this build knows 99" in done.stderr, done
    assert "restart failed" in upgrade.keeper.text() and "this build knows 99" in upgrade.keeper.text()
    assert is_served(volume) and volume.status()["restarts"] == before + 2
    volume.kill_worker()
    assert is_served(volume)


def test_a_restart_with_no_program_file_kills_nobody(upgrade, volume):
    volume.up()
    pid = volume.worker()
    (upgrade.programs / "holdfast-fuse").unlink()
    done = subprocess.run([BUILD / "holdfastctl", "--run-dir", upgrade.node.run_dir, "restart", "pv-1"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "No such file" in done.stderr
    assert is_served(volume) == pid


# an end without a successor


def test_open_files_outlive_sigterm(upgrade, volume):
    target = volume.up()
    with open(target / "big", "rb", buffering=0) as f, open(target / "new", "wb", buffering=0) as g:
        g.write(b"before ")
        assert upgrade.keeper.terminate() == 0
        assert not (upgrade.node.run_dir / "keeper.sock").exists()
        late = subprocess.Popen(["cat", str(target / "hello")], stdout=subprocess.PIPE, text=True)
        upgrade.node.start_keeper()
        assert late.communicate(timeout=20)[0] == "world\n" and late.returncode == 0
        g.write(b"after")
        assert os.pread(f.fileno(), 4096, 1 << 20) == CONTENT[1 << 20:(1 << 20) + 4096]
    assert (target / "new").read_bytes() == b"before after"
    assert is_served(volume)
    volume.down()
    upgrade.node.is_clean()


def test_without_an_escrow_sigterm_ends_the_connections(upgrade, volume):
    target = volume.up()
    upgrade.node.plugin.kill()
    assert upgrade.keeper.terminate() == 0
    with pytest.raises(OSError) as e:
        os.listdir(target)
    assert e.value.errno == errno.ENOTCONN


# the plugin


def test_a_second_plugin_waits_for_the_first_to_end(upgrade, volume):
    volume.up()
    first = upgrade.node.plugin
    second = Daemon("holdfast-csi", upgrade.node.plugin_args(), upgrade.node.base / "second.log").start()
    eventually(lambda: "waiting until it ends" in second.text(), what="the second plugin to wait")
    volume.publish("other")
    assert first.terminate() == 0
    upgrade.node.plugin = second
    eventually(upgrade.node._answers, what="the second plugin")
    upgrade.keeper.kill()
    upgrade.node.start_keeper()  # its escrow is filled
    assert is_served(volume)
    volume.unpublish("other")
    volume.down()
    upgrade.node.is_clean()
