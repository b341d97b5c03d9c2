# SPDX-License-Identifier: Apache-2.0
"""holdfast-keeper by itself: its control socket, spoken by an independent client, and what becomes of workers."""

import errno
import hashlib
import json
import os
import pathlib
import random
import resource
import select
import signal
import socket
import stat
import subprocess
import threading
import time
from collections import Counter

import pytest

import control
from control import Control
from harness import BUILD, PATIENCE, Daemon, eventually, listens, mountinfo

STUB = pathlib.Path(__file__).resolve().parent / "stub_worker.py"
CONTENT = bytes(i % 251 for i in range(1 << 20))


class Keeper:
    """A keeper whose worker is the stub, and what it serves."""

    def __init__(self, node):
        self.node, self.run_dir, self.daemon = node, node.run_dir, node.keeper
        self.behaviour = node.base / "behaviour"
        self.behave("serve")
        self.daemon.args += ["--worker", str(STUB)]
        self.daemon.env["HOLDFAST_STUB"] = str(self.behaviour)
        self.source = node.make_source("data")

    def behave(self, how):
        self.behaviour.write_text(how)

    def start(self):
        self.node.start_keeper()
        return self

    def add(self, volume="v1", **kw):
        kw.setdefault("mode", control.WORKER)
        return control.add(self.run_dir, volume, self.source, **kw)

    def added(self, volume="v1", **kw):
        """Add a volume and attach it; its mount point."""
        reply = self.add(volume, **kw)
        assert reply.code == 0, reply.text
        target = self.node.base / f"mnt-{volume}"
        target.mkdir(exist_ok=True)
        control.attach(reply.fds[0], target)
        return target

    def volume(self, volume="v1"):
        return control.listing(self.run_dir)[volume]

    def serving(self, volume="v1"):
        return eventually(lambda: (v := self.volume(volume)).state == control.SERVING and v, what="a serving worker")

    def is_up(self):
        return control.listing(self.run_dir) is not None

    def is_back_to(self, before):
        """The keeper has no more descriptors of any kind than at an earlier moment."""
        eventually(lambda: not kinds(self.daemon.fds()) - kinds(before), what="descriptors to go")
        return True

    def fds(self):
        """The keeper's descriptors once it has a worker in store."""
        children = pathlib.Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children")

        def settled():
            fds, n = self.daemon.fds(), len(children.read_text().split())
            time.sleep(0.02)
            known = n == sum("pidfd" in link for link in fds)  # not in the middle of a start
            return known and n > len(self.node.workers()) and self.daemon.fds() == fds and fds
        return eventually(settled, what="a worker in store")


def kinds(links):
    """Sockets have a number in their names."""
    return Counter(link.split("[")[0] for link in links)


@pytest.fixture
def idle_keeper(bare_node):
    return Keeper(bare_node)


@pytest.fixture
def keeper(idle_keeper):
    return idle_keeper.start()


def gone(pid):
    """Whether a process has ended (a zombie has)."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# what it serves


def test_the_run_directory_and_the_socket_are_only_for_their_owner(idle_keeper):
    idle_keeper.run_dir.mkdir(mode=0o755)
    idle_keeper.start()
    assert stat.S_IMODE(idle_keeper.run_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((idle_keeper.run_dir / "keeper.sock").stat().st_mode) == 0o600


def test_a_volume_is_served_until_it_is_removed(keeper):
    before = keeper.fds()
    target = keeper.added()
    assert (target / "file").read_bytes() == CONTENT
    volume = keeper.volume()
    assert (volume.state, volume.restarts) == (control.SERVING, 0)
    eventually(lambda: keeper.volume().waiting == 0, what="the release, which nobody waits for")
    assert volume.dev == os.stat(target).st_dev
    control.detach(target)
    control.remove(keeper.run_dir, "v1")
    assert gone(volume.pid)
    assert keeper.is_back_to(before)
    assert control.listing(keeper.run_dir) == {}
    assert keeper.node.fuse_mounts() == []


def test_the_mount_is_handed_out_again(keeper):
    target = keeper.added()
    reply = control.call(keeper.run_dir, control.request(control.MOUNT, "v1"))
    assert reply.code == 0 and len(reply.fds) == 1
    second = keeper.node.base / "second"
    second.mkdir()
    control.attach(reply.fds[0], second)
    assert os.stat(second).st_dev == os.stat(target).st_dev
    control.detach(target)
    assert (second / "file").read_bytes() == CONTENT


def test_a_volume_that_is_there_is_not_added_again(keeper):
    keeper.added()
    reply = keeper.add()
    assert reply.code == -errno.EEXIST and "v1" in reply.text and reply.fds == []


def test_a_volume_that_is_not_there(keeper):
    control.remove(keeper.run_dir, "nothing")
    reply = control.call(keeper.run_dir, control.request(control.MOUNT, "nothing"))
    assert reply.code == -errno.ENOENT and "nothing" in reply.text


def test_a_worker_gets_its_descriptors_and_nothing_else(keeper):
    keeper.behave("inspect")
    keeper.added()
    line = next(li for li in keeper.daemon.text().splitlines() if li.startswith("INSPECT"))
    fds = dict(eval(line[len("INSPECT "):line.rindex("]") + 1]))  # noqa: S307 (our own stub's line)
    opened_by_listing = {n for n, link in fds.items() if link.startswith("/proc/")}
    assert set(fds) - opened_by_listing == set(range(7))
    assert fds[3] == "/dev/fuse" and "holdfast-ledger" in fds[4] and fds[5] == str(keeper.source)
    assert line.split()[-1] == pathlib.Path("/proc/self/oom_score_adj").read_text().strip()


def test_many_volumes_are_listed(keeper):
    names = [f"volume-{i}" for i in range(30)]
    for name in names:
        for fd in keeper.add(name).fds:
            os.close(fd)
    assert list(control.listing(keeper.run_dir)) == names
    for name in names:
        control.remove(keeper.run_dir, name)
    assert eventually(lambda: keeper.node.workers() == [], what="workers to go")


def at_once(names, what):
    """Call what(name) for all names in parallel; the failures."""
    failures = []

    def one(name):
        try:
            what(name)
        except Exception as e:  # noqa: BLE001 (reported below)
            failures.append(f"{name}: {e}")

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return failures


def test_many_volumes_come_die_and_go_at_once(keeper):
    before = keeper.fds()
    names = [f"volume-{i}" for i in range(24 if PATIENCE == 1 else 8)]  # a worker has ten seconds to start

    def add(name):
        reply = keeper.add(name)
        assert reply.code == 0, reply.text
        os.close(reply.fds[0])

    assert at_once(names, add) == []
    for _ in range(3):
        before_it = control.listing(keeper.run_dir)
        for volume in before_it.values():
            os.kill(volume.pid, signal.SIGKILL)
        eventually(lambda: all(v.state == control.SERVING and v.restarts > before_it[v.id].restarts
                               for v in control.listing(keeper.run_dir).values()), what="all to serve again")
    assert at_once(names, lambda name: control.remove(keeper.run_dir, name)) == []
    assert keeper.is_back_to(before) and keeper.node.workers() == []


# workers that die


def test_a_reader_sees_no_error_while_workers_are_killed(keeper):
    target = keeper.added()
    stop, failures, reads = threading.Event(), [], [0]

    def read():
        rng = random.Random(1)
        while not stop.is_set():
            try:
                with open(target / "file", "rb", buffering=0) as f:
                    offset = rng.randrange(len(CONTENT) - 4096)
                    if os.pread(f.fileno(), 4096, offset) != CONTENT[offset:offset + 4096]:
                        failures.append(f"wrong bytes at {offset}")
                reads[0] += 1
            except OSError as e:
                failures.append(e)

    reader = threading.Thread(target=read)
    reader.start()
    killed = set()
    for _ in range(20):
        pid = keeper.serving().pid
        killed.add(pid)
        before = reads[0]
        eventually(lambda: reads[0] > before, what="a read")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: keeper.volume().pid != pid, what="the keeper to notice")
    keeper.serving()
    before = reads[0]
    eventually(lambda: reads[0] > before, what="a read after the last kill")
    stop.set()
    reader.join()
    assert failures == []
    assert len(killed) == 20 and keeper.volume().restarts == 20
    assert keeper.volume().reason == "killed by signal 9 (Killed)"
    assert "volume_id=v1" in keeper.daemon.text()


def test_restarts_hold_no_descriptors(keeper):
    keeper.added()
    before = keeper.fds()
    for _ in range(3):
        pid = keeper.serving().pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: keeper.volume().pid != pid, what="the keeper to notice")
    keeper.serving()
    assert keeper.is_back_to(before)


def test_a_worker_that_can_not_be_restarted_is_tried_again_until_it_can(keeper):
    target = keeper.added()
    keeper.behave("fail")
    os.kill(keeper.volume().pid, signal.SIGKILL)
    eventually(lambda: keeper.volume().restarts > 3, what="more attempts")
    volume = keeper.volume()
    assert volume.state == control.RESTARTING
    assert volume.reason == "no memory for nodes (exit code 1)"
    keeper.behave("serve")
    keeper.serving()
    assert (target / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("behaviour, code, words", [
    ("fail", errno.ENOMEM, "no memory for nodes"),
    ("exit", errno.EIO, "exit code 3"),
    ("garbage", errno.EPROTO, "another build"),
    ("foreign", errno.EPROTO, "another build"),
    ("mute", errno.ETIMEDOUT, "did not report"),
])
def test_a_first_worker_that_fails_leaves_nothing_behind(keeper, behaviour, code, words):
    before = keeper.fds()
    keeper.behave(behaviour)
    reply = keeper.add()
    assert reply.code == -code and words in reply.text and reply.fds == []
    assert keeper.is_back_to(before)
    assert keeper.node.workers() == [] and control.listing(keeper.run_dir) == {}
    keeper.behave("serve")
    keeper.added()


def test_a_worker_program_that_is_not_there(idle_keeper):
    idle_keeper.daemon.args[-1] = "/nonexistent/worker"
    idle_keeper.start()
    before = idle_keeper.daemon.fds()
    reply = idle_keeper.add()
    assert reply.code == -errno.ENOENT and "exec /nonexistent/worker: No such file" in reply.text
    assert idle_keeper.is_back_to(before)


def test_others_are_served_while_a_worker_starts(keeper):
    keeper.behave("mute")
    fd = os.open(keeper.source, os.O_PATH)
    with Control(keeper.run_dir) as c:
        c.send(control.request(control.ADD, "slow", mode=control.WORKER), [fd])
        os.close(fd)
        eventually(lambda: "mute worker" in keeper.daemon.text(), what="the mute worker")
        assert keeper.volume("slow").state == control.STARTING
        keeper.behave("serve")
        keeper.added("quick")
        busy = control.call(keeper.run_dir, control.request(control.MOUNT, "slow"))
        assert busy.code == -errno.EBUSY
        control.remove(keeper.run_dir, "slow")
        assert c.receive().code == -errno.ECANCELED
    assert list(control.listing(keeper.run_dir)) == ["quick"]


def test_a_client_that_goes_away_takes_its_volume_with_it(keeper):
    before = keeper.fds()
    keeper.behave("mute")
    fd = os.open(keeper.source, os.O_PATH)
    with Control(keeper.run_dir) as c:
        c.send(control.request(control.ADD, "v1", mode=control.WORKER), [fd])
        eventually(lambda: control.listing(keeper.run_dir), what="the volume")
    os.close(fd)
    eventually(lambda: control.listing(keeper.run_dir) == {}, what="the volume to go")
    eventually(lambda: keeper.node.workers() == [], what="all to go")
    assert keeper.is_back_to(before)


def test_removing_does_not_need_a_worker(keeper):
    before = keeper.fds()
    target = keeper.added()
    keeper.behave("fail")
    os.kill(keeper.volume().pid, signal.SIGKILL)
    eventually(lambda: keeper.volume().restarts > 6, what="a long back-off")
    control.detach(target)
    control.remove(keeper.run_dir, "v1")
    assert keeper.is_back_to(before)


def test_two_removals_of_one_volume_are_both_answered(keeper):
    keeper.added()
    with Control(keeper.run_dir) as a, Control(keeper.run_dir) as b:
        a.send(control.request(control.REMOVE, "v1"))
        b.send(control.request(control.REMOVE, "v1"))
        assert a.receive().code == 0 and b.receive().code == 0


def test_a_worker_that_is_stopped_with_a_request_just_read_is_taken_over(keeper):
    """It does not say yet that it is at it, and there is nothing left to read."""
    keeper.behave("swallow")
    target = keeper.added()
    reader = subprocess.Popen(["cat", str(target / "file")], stdout=subprocess.PIPE)
    eventually(lambda: keeper.volume().waiting > 0, what="a request")
    time.sleep(0.2)  # which is read
    os.kill(keeper.volume().pid, signal.SIGSTOP)
    keeper.behave("serve")
    assert reader.communicate(timeout=20 * PATIENCE)[0] == CONTENT
    assert "it hung" in keeper.daemon.text()


def test_a_stopped_worker_is_removed(patient, keeper):
    target = keeper.added()
    os.kill(keeper.volume().pid, signal.SIGSTOP)
    control.detach(target)
    control.remove(keeper.run_dir, "v1")
    assert keeper.node.workers() == []


def test_a_reader_of_a_removed_volume_gets_an_error_and_does_not_hang(patient, keeper):
    target = keeper.added()
    os.kill(keeper.volume().pid, signal.SIGSTOP)
    reader = subprocess.Popen(["cat", str(target / "file")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    eventually(lambda: keeper.volume().waiting > 0, what="a waiting request")
    control.remove(keeper.run_dir, "v1")
    assert reader.wait(20) != 0
    reader.stderr.close()
    control.detach(target)


def uninterruptible(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "D"


@pytest.fixture
def stuck(keeper):
    """A volume "stuck" whose worker hangs in a call that the kernel does not interrupt: on the mount of "hung"."""
    keeper.behave("swallow")
    hung = keeper.added("hung")
    keeper.behave(f"stat {hung}")
    keeper.added("stuck")
    eventually(lambda: keeper.volume("hung").waiting > 0, what="the worker to hang")
    return keeper


def test_a_worker_that_can_not_be_killed_holds_no_removal_up(stuck):
    pid = stuck.volume("stuck").pid
    control.detach(stuck.node.base / "mnt-stuck")
    control.remove(stuck.run_dir, "stuck")
    assert uninterruptible(pid)
    assert list(control.listing(stuck.run_dir)) == ["hung"]
    control.detach(stuck.node.base / "mnt-hung")
    control.remove(stuck.run_dir, "hung")
    eventually(lambda: "has ended" in stuck.daemon.text(), what="the worker to be reaped")
    assert stuck.node.workers() == []


def test_a_worker_that_can_not_be_killed_holds_no_sigterm_up(stuck):
    pid = stuck.volume("stuck").pid
    assert stuck.daemon.terminate() == 0
    eventually(lambda: gone(pid), what="the worker to end")


def test_a_hung_source_is_refused_and_holds_nobody_up(keeper):
    keeper.added("other")
    keeper.behave("swallow")
    hung = keeper.added("hung")
    keeper.behave("serve")
    before = keeper.fds()
    fd = os.open(hung, os.O_PATH)
    with Control(keeper.run_dir) as c:
        c.send(control.request(control.ADD, "v1"), [fd])
        os.close(fd)
        eventually(lambda: keeper.volume("hung").waiting > 0, what="the source to be asked")
        assert keeper.volume("v1").state == control.STARTING
        os.kill(keeper.volume("other").pid, signal.SIGKILL)
        assert keeper.serving("other")
        reply = c.receive()
    assert reply.code == -errno.ETIMEDOUT and "source hangs" in reply.text
    assert sorted(control.listing(keeper.run_dir)) == ["hung", "other"]
    control.detach(hung)
    control.remove(keeper.run_dir, "hung")
    eventually(lambda: len(keeper.node.workers()) == 1, what="the child that asked to end")
    eventually(lambda: len(keeper.daemon.fds()) < len(before), what="descriptors to go")


def test_a_dead_source_is_refused(keeper):
    dead = keeper.added("dead")
    keeper.node.abort_connections()
    eventually(lambda: keeper.volume("dead").state == control.DEAD, what="the volume to be dead")
    reply = control.add(keeper.run_dir, "v1", dead)
    assert reply.code == -errno.ENOTCONN and "statfs of the source" in reply.text
    assert list(control.listing(keeper.run_dir)) == ["dead"]


def test_an_aborted_connection_is_dead_until_it_is_removed(keeper):
    before = keeper.fds()
    target = keeper.added()
    pid = keeper.volume().pid
    keeper.node.abort_connections()
    eventually(lambda: keeper.volume().state == control.DEAD, what="the volume to be dead")
    assert gone(pid) and keeper.volume().pid == 0
    reply = control.call(keeper.run_dir, control.request(control.MOUNT, "v1"))
    assert reply.code == -errno.ENOTCONN and "remove" in reply.text
    control.detach(target)
    control.remove(keeper.run_dir, "v1")
    assert keeper.is_back_to(before)
    keeper.added()


# hostile and clumsy clients


def bad_packets():
    good = control.request(control.LIST)
    body = control.body("v1")
    return {
        "noise": random.Random(7).randbytes(control.REQUEST_SIZE),
        "one byte": b"x",
        "a header alone": good[:24],
        "short": good[:-1],
        "long": good + b"\0",
        "very long": good + bytes(60000),
        "another magic": control.header(control.LIST, magic=1) + body,
        "a wrong size": control.header(control.LIST, size=12) + body,
        "flags": control.header(control.LIST, flags=1) + body,
        "reserved bits": control.header(control.LIST, reserved=1) + body,
        "an unknown type": control.header(99) + body,
        "type 0": control.header(0) + body,
        "an empty id": control.request(control.REMOVE, ""),
        "an endless id": control.request(control.REMOVE, b"x" * 136),
        "an id with something behind": control.request(control.REMOVE, b"v1\0v2"),
        "unknown volume flags": control.request(control.ADD, "v1", flags=1 << 20),
        "an unknown mode": control.request(control.ADD, "v1", mode=9),
        "immutable, but writable": control.request(control.ADD, "v1", consistency=1),
        "too little memory": control.request(control.ADD, "v1", memory=(16 << 20) - 1),
        "more memory than there is": control.request(control.ADD, "v1", memory=1 << 63),
        "config bits to come": control.request(control.ADD, "v1", reserved=1),
    }


@pytest.mark.parametrize("what", bad_packets())
def test_a_bad_packet_gets_one_answer_and_the_door(keeper, what):
    before = keeper.fds()
    with Control(keeper.run_dir) as c:
        reply = c.call(bad_packets()[what])
        assert reply.code < 0 and reply.text
        assert c.receive() is None
    assert keeper.is_up()
    assert keeper.is_back_to(before)


def test_another_version_is_told_so(keeper):
    with Control(keeper.run_dir) as c:
        other = control.VERSION + 1
        reply = c.call(control.header(control.LIST, version=other, serial=42) + control.body())
        assert reply.code == -errno.EPROTONOSUPPORT and f"version {other}" in reply.text and reply.serial == 42
        assert c.receive() is None


@pytest.mark.parametrize("what, code", [
    ("none", errno.EINVAL), ("two", errno.EINVAL), ("a file", errno.ENOTDIR), ("not O_PATH", errno.EINVAL),
])
def test_a_source_that_is_no_directory_handle_is_refused(keeper, what, code):
    before = keeper.fds()
    path = os.open(keeper.source, os.O_PATH)
    file = os.open(keeper.behaviour, os.O_PATH)
    plain = os.open(keeper.source, os.O_RDONLY)
    fds = {"none": [], "two": [path, path], "a file": [file], "not O_PATH": [plain]}[what]
    reply = control.call(keeper.run_dir, control.request(control.ADD, "v1"), fds)
    assert reply.code == -code and "source" in reply.text
    for fd in (path, file, plain):
        os.close(fd)
    assert keeper.is_back_to(before)


def test_unasked_descriptors_are_closed(keeper):
    before = keeper.fds()
    fd = os.open("/dev/null", os.O_RDONLY)
    assert control.call(keeper.run_dir, control.request(control.LIST), [fd] * 4).code == 0
    reply = control.call(keeper.run_dir, control.request(control.LIST), [fd] * 8)
    assert reply.code == -errno.EBADMSG
    os.close(fd)
    assert keeper.is_back_to(before)


def test_a_thousand_idle_connections_do_not_keep_others_out(keeper):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    before = keeper.fds()
    idle = [Control(keeper.run_dir) for _ in range(1000)]
    try:
        target = keeper.added()
        assert (target / "file").read_bytes() == CONTENT
        assert len(keeper.daemon.fds()) < 400
    finally:
        for c in idle:
            c.socket.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    control.detach(target)
    control.remove(keeper.run_dir, "v1")
    assert keeper.is_back_to(before)


def test_clients_that_do_not_read_hold_nobody_up(keeper):
    for i in range(20):
        for fd in keeper.add(f"v{i}").fds:
            os.close(fd)
    deaf = [Control(keeper.run_dir) for _ in range(300)]
    for c in deaf:
        c.socket.setblocking(False)
        try:
            for _ in range(200):
                c.send(control.request(control.LIST))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass
    started = time.monotonic()
    assert len(control.listing(keeper.run_dir)) == 20
    assert time.monotonic() - started < 5
    for c in deaf:
        c.socket.close()
    assert keeper.is_up()


def test_a_slow_reader_gets_its_whole_list(keeper):
    for i in range(20):
        for fd in keeper.add(f"v{i}").fds:
            os.close(fd)
    with Control(keeper.run_dir) as c:
        requests = 7  # more replies than a socket holds
        for _ in range(requests):
            c.send(control.request(control.LIST))
        time.sleep(0.2)
        volumes, ends = 0, 0
        while ends < requests:
            more = c.receive().flags & control.MORE
            volumes, ends = volumes + bool(more), ends + (not more)
    assert volumes == 20 * requests


def test_another_user_is_not_served(keeper):
    os.chmod(keeper.run_dir, 0o711)
    os.chmod(keeper.run_dir / "keeper.sock", 0o666)
    os.chmod(keeper.node.base, 0o711)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setuid(65534)
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            s.settimeout(10)
            s.connect(str(keeper.run_dir / "keeper.sock"))
            try:
                s.send(control.request(control.LIST))
                status = 0 if s.recv(4096) == b"" else 2
            except (BrokenPipeError, ConnectionResetError):
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert keeper.is_up()


# the keeper's own life


def test_sigterm_ends_workers_and_exits_0(keeper):
    target = keeper.added()
    keeper.added("v2")
    pids = [keeper.volume("v1").pid, keeper.volume("v2").pid]
    os.kill(pids[0], signal.SIGSTOP)
    assert keeper.daemon.terminate() == 0
    assert all(gone(pid) for pid in pids)
    assert not (keeper.run_dir / "keeper.sock").exists()
    with pytest.raises(OSError):
        os.listdir(target)


def test_sigterm_with_an_add_under_way(keeper):
    keeper.behave("mute")
    fd = os.open(keeper.source, os.O_PATH)
    with Control(keeper.run_dir) as c:
        c.send(control.request(control.ADD, "v1", mode=control.WORKER), [fd])
        os.close(fd)
        pid = eventually(lambda: control.listing(keeper.run_dir), what="the volume")["v1"].pid
        assert keeper.daemon.terminate() == 0
        assert c.receive() is None
    assert gone(pid)


def test_workers_die_with_a_killed_keeper(keeper):
    keeper.added()
    pid = keeper.volume().pid
    keeper.daemon.kill()
    eventually(lambda: gone(pid), what="the worker to die")


def test_a_killed_keepers_socket_is_replaced(keeper):
    eventually(lambda: " serves " in keeper.daemon.text(), what="the first keeper's log")  # its socket comes before
    keeper.daemon.kill()
    assert (keeper.run_dir / "keeper.sock").exists()
    keeper.daemon.start()
    eventually(lambda: keeper.daemon.text().count(" serves ") == 2 and keeper.is_up(), what="the new keeper")
    keeper.added()


def run_without(keeper, *wrapper):
    """The keeper started by way of a command that takes something away from it."""
    keeper.daemon.process = subprocess.Popen(
        [*wrapper, str(BUILD / "holdfast-keeper"), *keeper.daemon.args], stdin=subprocess.DEVNULL,
        stdout=open(keeper.daemon.log, "ab"), stderr=subprocess.STDOUT)
    eventually(lambda: listens(keeper.run_dir / "keeper.sock"), what="keeper's socket")


def test_too_few_descriptors_are_told_and_survived(idle_keeper):
    run_without(idle_keeper, "prlimit", "--nofile=64:64")
    added = 0
    while (reply := idle_keeper.add(f"v{added}")).code == 0:
        os.close(reply.fds[0])
        added += 1
    assert reply.code == -errno.EMFILE and "LimitNOFILE" in reply.text and added > 1
    clients = [Control(idle_keeper.run_dir) for _ in range(60)]
    os.kill(idle_keeper.volume("v0").pid, signal.SIGKILL)
    eventually(lambda: idle_keeper.volume("v0").restarts == 1, what="the keeper to notice")
    idle_keeper.serving("v0")
    for c in clients:
        c.socket.close()
    control.remove(idle_keeper.run_dir, "v0")
    assert idle_keeper.add("again").code == 0


def test_without_the_fuse_device_adding_says_what_is_missing(idle_keeper):
    run_without(idle_keeper, "unshare", "--mount", "sh", "-c",
                'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec "$@"', "sh")
    before = idle_keeper.fds()
    reply = idle_keeper.add()
    assert reply.code == -errno.ENOENT and "/dev/fuse" in reply.text and "modprobe" in reply.text
    assert idle_keeper.is_back_to(before) and idle_keeper.is_up()


def test_without_cap_sys_admin_adding_says_what_is_missing(idle_keeper):
    run_without(idle_keeper, "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    before = idle_keeper.fds()
    reply = idle_keeper.add()
    assert reply.code == -errno.EPERM and "CAP_SYS_ADMIN" in reply.text
    assert idle_keeper.is_back_to(before) and idle_keeper.is_up()


def test_a_run_directory_that_can_not_be_used_is_named(idle_keeper):
    parent = idle_keeper.node.base / "missing"
    done = subprocess.run([BUILD / "holdfast-keeper", "--run-dir", parent / "run"], capture_output=True, text=True,
                          timeout=20)
    assert done.returncode == 1 and f"make the run directory {parent}/run" in done.stderr
    (idle_keeper.node.base / "file").write_text("")
    done = subprocess.run([BUILD / "holdfast-keeper", "--run-dir", idle_keeper.node.base / "file"],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "file" in done.stderr


def test_the_service_manager_is_told(idle_keeper):
    path = idle_keeper.node.base / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        idle_keeper.daemon.env |= {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(200000 * PATIENCE))}
        idle_keeper.start()
        messages = set()
        while not {"READY=1", "WATCHDOG=1"} <= messages:
            messages |= set(manager.recv(4096).decode().split("\n"))
        idle_keeper.add()
        while "STATUS=1 volume" not in messages:
            messages |= set(manager.recv(4096).decode().split("\n"))
        assert idle_keeper.daemon.terminate() == 0
        while "STOPPING=1" not in messages:
            messages |= set(manager.recv(4096).decode().split("\n"))


def test_a_service_manager_that_does_not_read_holds_nobody_up(idle_keeper):
    path = idle_keeper.node.base / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        idle_keeper.daemon.env |= {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000"}
        idle_keeper.start()
        manager.setblocking(False)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            eventually(lambda: other.connect(str(path)) or not select.select([], [other], [], 0)[1], what="its queue to be full")
        assert idle_keeper.add().code == 0
        assert idle_keeper.daemon.terminate() == 0


# holdfastctl


def ctl(keeper, *args):
    return subprocess.run([BUILD / "holdfastctl", "--run-dir", keeper.run_dir, *args], capture_output=True, text=True,
                          timeout=30)


def test_status_shows_a_volume_that_only_the_keeper_knows(keeper):
    keeper.added()
    volume = keeper.volume()
    entry = json.loads(ctl(keeper, "status", "--json").stdout)["volumes"][0]
    assert entry["id"] == "v1" and entry["state"] == "serving" and entry["workerPid"] == volume.pid
    assert entry["readOnly"] is False and entry["restarts"] == 0 and entry["waiting"] == 0
    assert entry["connection"] == os.minor(volume.dev)
    assert entry["source"] is None and entry["targets"] == [] and entry["recorded"] is False
    table = ctl(keeper, "status")
    assert table.returncode == 0 and "v1" in table.stdout and "no record" in table.stdout


def test_status_takes_sources_and_targets_from_the_records_and_changes_none(keeper):
    keeper.added()
    volumes = keeper.run_dir / "volumes"
    volumes.mkdir()
    record = {"version": 1, "state": "staged", "source": str(keeper.source), "stagingPath": "/staging", "fingerprint": "f",
              "ephemeral": False, "dev": 0, "readOnly": True, "mode": "auto", "consistency": "close-to-open", "maxRead": 0,
              "targets": [{"path": f"/pods/{pod}", "fingerprint": "", "readOnly": False, "published": True,
                           "created": True} for pod in (1, 2)]}
    for name in ("v1", "v2"):
        path = volumes / (hashlib.sha256(name.encode()).hexdigest() + ".json")
        path.write_text(json.dumps({**record, "id": name}))
    (volumes / (hashlib.sha256(b"v3").hexdigest() + ".json")).write_text("{")
    before = sorted(p.name for p in volumes.iterdir())
    first, second = json.loads(ctl(keeper, "status", "--json").stdout)["volumes"]
    assert first["source"] == str(keeper.source) and first["targets"] == ["/pods/1", "/pods/2"]
    assert first["state"] == "serving" and first["recorded"] and first["served"]
    assert (second["id"], second["state"], second["workerPid"], second["served"]) == ("v2", "not served", None, False)
    assert "the keeper does not serve it" in ctl(keeper, "status").stdout
    assert sorted(p.name for p in volumes.iterdir()) == before


def test_status_without_volumes(keeper):
    assert json.loads(ctl(keeper, "status", "--json").stdout) == {"volumes": []}
    assert ctl(keeper, "status").stdout.startswith("ID")


def test_status_without_a_keeper(idle_keeper):
    done = ctl(idle_keeper, "status")
    assert done.returncode == 1 and "no holdfast-keeper answers" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("args", [(), ("frobnicate",), ("status", "more"), ("status", "--what")])
def test_a_wrong_command_line_exits_2(keeper, args):
    assert ctl(keeper, *args).returncode == 2
