# SPDX-License-Identifier: Apache-2.0
"""The keeper may be killed, and its workers with it: holdfast-csi holds every connection, and the next keeper goes on."""

import errno
import fcntl
import os
import pathlib
import random
import signal
import struct
import subprocess
import threading
import time
from collections import Counter

import grpc
import pytest

import control
from harness import BUILD, AccessMode, eventually, listens, mountinfo

Code = grpc.StatusCode
READ_WRITE = AccessMode.SINGLE_NODE_MULTI_WRITER
CONTENT = random.Random(3).randbytes(4 << 20)


@pytest.fixture
def volume(node):
    node.make_source("data", {"big": CONTENT, "hello": "world\n"})
    return node.volume("pv-1", node.sources / "data", access=READ_WRITE)


def worker_mode(node, **kw):
    node.make_source("data", {"big": CONTENT, "hello": "world\n"})
    return node.volume("pv-1", node.sources / "data", attributes={"mode": "worker"}, access=READ_WRITE, **kw)


def kill_keeper(node):
    workers = node.workers()
    node.keeper.kill()
    eventually(lambda: all(gone(w) for w in workers), what="its workers to die")


def gone(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def next_keeper(node):
    """The keeper is killed, and started again."""
    kill_keeper(node)
    node.start_keeper()


def restored(node, n=1):
    """Wait until the keeper that is there serves as many volumes."""
    return eventually(lambda: [v["state"] for v in node.status().values() if v["served"]] == ["serving"] * n,
                      what=f"{n} volumes to be given back")


def ends_with_enotconn(call):
    """The kernel answers what it had taken when the connection ended with another error, and all else with this one."""
    def error():
        try:
            return call() and None
        except OSError as e:
            return e.errno
    eventually(lambda: error() == errno.ENOTCONN, what="ENOTCONN")


def kinds(daemon):
    """Sockets come and go with the clients, and what belongs to the worker in store with that."""
    return Counter(link for link in daemon.fds() if not link.startswith("socket:") and link != "anon_inode:[pidfd]")


class Load:
    """Threads that call a function again and again; whatever one raises is a failure."""

    def __init__(self, *calls):
        self.stop_now, self.failures, self.done = threading.Event(), [], [0] * len(calls)
        self.threads = [threading.Thread(target=self._run, args=(i, call)) for i, call in enumerate(calls)]

    def _run(self, i, call):
        while not self.stop_now.is_set():
            try:
                call(self.done[i])
            except Exception as e:  # noqa: BLE001 (reported at the end)
                self.failures.append(f"{call.__name__} {self.done[i]}: {e!r}")
                return
            self.done[i] += 1

    def goes_on(self):
        before = list(self.done)
        return eventually(lambda: self.failures or all(d > b + 1 for d, b in zip(self.done, before)), what="the load to go on")

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop_now.set()
        for t in self.threads:
            t.join(30)
        assert self.failures == []


# the keeper dies


def test_a_file_that_is_open_is_read_on_without_a_keeper(node, volume):
    """In passthrough while there is none; elsewhere when there is the next one."""
    target = volume.up()
    alone = volume.is_passthrough()
    with open(target / "big", "rb", buffering=0) as f:
        # by read(2) alone: Python's read() asks for the size, which may be out of date, and then waits for a worker
        content = lambda: b"".join(iter(lambda: os.read(f.fileno(), 1 << 20), b""))
        kill_keeper(node)
        assert not alone or content() == CONTENT
        late = subprocess.Popen(["cat", str(target / "hello")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        node.start_keeper()
        assert late.communicate(timeout=20)[0] == "world\n" and late.returncode == 0
        assert alone or content() == CONTENT
    assert (target / "big").read_bytes() == CONTENT
    assert volume.status()["restarts"] == 1 and volume.status()["reason"] == "it went down with its keeper"
    volume.down()
    node.is_clean()


def test_twenty_keepers_in_a_row_under_load(node):
    volume = worker_mode(node)
    target = volume.up()
    dev = os.stat(target).st_dev
    (target / "dir").mkdir()
    for i in range(300):
        (target / "dir" / f"f{i:03}").write_text("")
    names = sorted(os.listdir(target / "dir"))
    held = os.open(target / "big", os.O_RDONLY)
    log = os.open(target / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def read(i):
        offset = random.Random(i).randrange(len(CONTENT) - 4096)
        os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(held, 4096, offset) == CONTENT[offset:offset + 4096]

    def open_read_close(i):
        assert (target / "hello").read_text() == "world\n"

    def append(i):
        assert os.write(log, b"%07d\n" % i) == 8

    def make_and_remove(i):
        os.mkdir(target / f"d{i}")
        os.rmdir(target / f"d{i}")

    def list_names(i):
        assert sorted(os.listdir(target / "dir")) == names

    with Load(read, open_read_close, append, make_and_remove, list_names) as load:
        for _ in range(20):
            load.goes_on()
            node.keeper.kill()
            node.start_keeper()
        load.goes_on()
    written = (node.sources / "data" / "log").read_bytes()
    assert written == b"".join(b"%07d\n" % i for i in range(load.done[2]))
    os.close(held)
    os.close(log)
    assert volume.status()["restarts"] == 20 and os.stat(target).st_dev == dev
    volume.down()
    node.is_clean()


def test_a_listing_goes_on_where_it_was(node):
    volume = worker_mode(node)
    names = {f"file-with-a-long-name-{i:05}" for i in range(3000)}
    for name in names:
        (node.sources / "data" / name).write_text("")
    target = volume.up()
    with os.scandir(target) as entries:
        seen = [next(entries).name for _ in range(100)]
        next_keeper(node)
        seen += [e.name for e in entries]
    assert sorted(seen) == sorted(names | {"big", "hello"})


def test_keeper_and_worker_in_turn(node):
    volume = worker_mode(node)
    target = volume.up()

    def read(i):
        assert (target / "big").read_bytes() == CONTENT

    with Load(read) as load:
        for _ in range(5):
            next_keeper(node)
            restored(node)
            volume.kill_worker()
            os.kill(volume.worker(), signal.SIGKILL)
            load.goes_on()
    assert volume.status()["restarts"] >= 15


def test_the_plugin_dies_first_and_the_keeper_after_it(node, volume):
    target = volume.up()
    for _ in range(3):
        node.plugin.kill()
        node.start_plugin()
        next_keeper(node)
        assert (target / "big").read_bytes() == CONTENT
    assert volume.status()["restarts"] == 3
    volume.down()
    node.is_clean()


def test_a_plugin_that_starts_while_there_is_no_keeper_finds_the_next(node, volume):
    volume.up()
    kill_keeper(node)
    volume.down()
    node.start_keeper()
    assert control.listing(node.run_dir) == {}
    target = volume.up()
    next_keeper(node)
    assert (target / "hello").read_text() == "world\n"


def test_many_volumes_are_given_back(node):
    node.make_source("data", {"hello": "world\n"})
    volumes = [node.volume(f"pv-{i}", node.sources / "data") for i in range(20)]
    targets = [v.up() for v in volumes]
    next_keeper(node)
    for target in targets:
        assert (target / "hello").read_text() == "world\n"
    restored(node, 20)
    for v in volumes:
        v.down()
    node.is_clean()


def test_calls_right_after_a_restart_find_the_volume(node, volume):
    """No call may take a volume for lost that is about to be given back: it would mount a second one over it."""
    target = volume.up()
    dev = os.stat(target).st_dev
    for i in range(10):
        node.keeper.kill()
        node.keeper.start()
        while True:
            try:
                volume.stage()
                other = volume.publish(f"other-{i}")
                break
            except grpc.RpcError as e:
                assert e.code() == Code.UNAVAILABLE, e.details()
        assert os.stat(other).st_dev == dev
        assert "connection has ended" not in volume.stats().volume_condition.message
        volume.unpublish(f"other-{i}")
    assert "mounted afresh" not in node.plugin.text()
    assert len([m for m in mountinfo() if m["target"] == str(volume.staging)]) == 1
    volume.down()
    node.is_clean()


@pytest.mark.parametrize("call", ("stage", "unstage", "publish", "unpublish"))
def test_killed_in_the_middle_of_a_call(node, volume, call):
    dice = random.Random(call)

    def insist(what):
        while True:
            try:
                return what()
            except grpc.RpcError as e:
                assert e.code() in (Code.UNAVAILABLE, Code.ABORTED), f"{e.code()}: {e.details()}"

    for _ in range(10):
        if call != "stage":
            insist(volume.stage)
        if call.startswith("un"):
            insist(volume.publish)
        if call == "unstage":
            insist(volume.unpublish)
        one = threading.Thread(target=lambda: insist(getattr(volume, call)))
        one.start()
        time.sleep(dice.uniform(0, 0.008))
        node.keeper.kill()
        node.start_keeper()
        one.join(15)
        assert not one.is_alive(), node.plugin.text()[-4000:] + node.keeper.text()[-2000:]
        if call in ("stage", "publish"):
            assert (insist(volume.publish) / "hello").read_text() == "world\n"
            assert len([m for m in mountinfo() if m["target"] == str(volume.staging)]) == 1
        insist(volume.unpublish)
        insist(volume.unstage)
        node.is_clean()
        eventually(lambda: control.listing(node.run_dir) == {}, what="the keeper to have nothing")
        assert len([fd for fd in node.plugin.fds() if fd == "/dev/fuse"]) == 0


def test_keeper_and_plugin_together_take_the_connections_with_them(node):
    volume = worker_mode(node)
    target = volume.up()
    with open(target / "big", "rb", buffering=0) as f:
        node.plugin.kill()
        kill_keeper(node)
        for call in (lambda: os.listdir(target), lambda: os.pread(f.fileno(), 4096, 2 << 20)):
            ends_with_enotconn(call)
    node.start()
    eventually(lambda: "was healed" in node.plugin.text(), what="the healing")
    assert (target / "hello").read_text() == "world\n"
    assert not volume.stats().volume_condition.abnormal
    volume.down()
    node.is_clean()


def test_without_a_keeper_the_condition_says_so(node, volume):
    volume.up()
    kill_keeper(node)
    condition = volume.stats().volume_condition
    assert condition.abnormal and "holdfast-keeper does not answer" in condition.message
    node.start_keeper()
    eventually(lambda: not volume.stats().volume_condition.abnormal, what="the volume to be well again")


def test_both_in_namespaces_of_their_own(bare_node):
    """As two containers of a pod: other pids, other mounts, and whoever holds an orphan is another init."""
    node = bare_node
    node.run_dir.mkdir(mode=0o700)

    def start_keeper():
        node.keeper.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child",
             str(BUILD / "holdfast-keeper"), *node.keeper.args], stdin=subprocess.DEVNULL,
            stdout=open(node.keeper.log, "ab"), stderr=subprocess.STDOUT)
        eventually(lambda: listens(node.run_dir / "keeper.sock"), what="keeper's socket")

    start_keeper()
    node.start_plugin()
    volume = worker_mode(node)
    target = volume.up()

    def read(i):
        assert (target / "big").read_bytes() == CONTENT

    with Load(read) as load:
        for _ in range(5):
            load.goes_on()
            node.keeper.kill()
            eventually(lambda: not listens(node.run_dir / "keeper.sock"), what="the namespace to end")
            start_keeper()
        load.goes_on()
    assert volume.status()["restarts"] == 5
    volume.down()


# what is held


def test_nothing_is_held_longer_than_its_volume(node, volume):
    volume.up()
    volume.down()
    plugin, keeper = kinds(node.plugin), kinds(node.keeper)
    for _ in range(3):
        volume.up()
        assert kinds(node.plugin) - plugin != Counter()
        next_keeper(node)
        restored(node)
        volume.down()
    assert eventually(lambda: kinds(node.plugin) == plugin, what=f"{plugin}, not {kinds(node.plugin)}")
    assert eventually(lambda: kinds(node.keeper) == keeper, what=f"{keeper}, not {kinds(node.keeper)}")


def test_a_volume_that_ends_by_itself_is_not_given_back(node, volume):
    target = volume.up()
    before = volume.status()["connection"]
    os.kill(node.plugin.pid, signal.SIGSTOP)
    node.abort_connections()
    kill_keeper(node)
    os.kill(node.plugin.pid, signal.SIGCONT)
    node.start_keeper()
    eventually(lambda: "was healed" in node.plugin.text(), what="the healing")
    assert volume.status()["connection"] != before
    assert node.plugin.fds().count("/dev/fuse") == 1
    assert (target / "hello").read_text() == "world\n"


def close_channels(node):
    """Those of earlier calls take descriptors of the plugin's too."""
    while node._channels:
        node._channels.pop().close()


def test_too_few_descriptors_for_an_escrow_are_told_and_survived(bare_node):
    node = bare_node
    node.make_source("data", {"hello": "world\n"})
    node.start_keeper()
    node.plugin.process = subprocess.Popen(
        ["prlimit", "--nofile=80:80", str(BUILD / "holdfast-csi"), *map(str, node.plugin.args)],
        stdin=subprocess.DEVNULL, stdout=open(node.plugin.log, "ab"), stderr=subprocess.STDOUT)
    eventually(node._answers, what="plugin's answer")
    staged = []
    for i in range(30):
        volume = node.volume(f"pv-{i}", node.sources / "data")
        try:
            volume.stage()
        except grpc.RpcError as e:
            assert e.code() in (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE), e.details()
            break
        staged.append(volume)
        close_channels(node)
    assert "no escrow" in node.plugin.text() and len(staged) > 4
    for volume in staged:
        assert (volume.staging / "hello").read_text() == "world\n"
        volume.unstage()
        close_channels(node)
    node.is_clean()


# what a keeper refuses


@pytest.fixture
def held(node, volume):
    """A volume's descriptors, with its keeper killed and nobody but us to give them back."""
    volume.up()
    fds = control.escrow(node.run_dir, volume.id)
    node.plugin.kill()
    next_keeper(node)
    yield fds
    for fd in fds:
        os.close(fd)


def test_a_volume_is_adopted_once(node, volume, held):
    before = (volume.target() / "hello").read_text() if control.adopt(node.run_dir, "pv-1", held).code == 0 else None
    assert before == "world\n"
    again = control.adopt(node.run_dir, "pv-1", held)
    assert again.code == -errno.EEXIST and "pv-1" in again.text
    assert (volume.target() / "hello").read_text() == "world\n"


def fresh_fuse():
    return os.open("/dev/fuse", os.O_RDWR)


def copy_of_ledger(fd, version=None, sealed=True):
    """The ledger's first page in another memfd."""
    copy = os.memfd_create("copy", os.MFD_ALLOW_SEALING)
    os.ftruncate(copy, os.fstat(fd).st_size)
    page = bytearray(os.pread(fd, 16384, 0))
    if version is not None:
        struct.pack_into("=I", page, 8, version)
    os.pwrite(copy, page, 0)
    if sealed:
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return copy


MOUNT, DEVICE, LEDGER, SOURCE = range(4)
WRONG = {
    "no mount": (MOUNT, lambda node, fds: os.open("/", os.O_PATH), errno.EINVAL, "first descriptor"),
    "another directory of the mount": (MOUNT, lambda node, fds: os.open(node.base, os.O_PATH), errno.EINVAL, "first"),
    "no device": (DEVICE, lambda node, fds: os.open("/dev/null", os.O_RDWR), errno.EINVAL, "/dev/fuse"),
    "a device without a connection": (DEVICE, lambda node, fds: fresh_fuse(), errno.ENOTCONN, "has ended"),
    "a device to read from": (DEVICE, lambda node, fds: os.open("/dev/fuse", os.O_RDONLY), errno.EINVAL, "/dev/fuse"),
    "no ledger": (LEDGER, lambda node, fds: os.open("/dev/zero", os.O_RDWR), errno.EBADMSG, "ledger"),
    "an unsealed ledger": (LEDGER, lambda node, fds: copy_of_ledger(fds[LEDGER], sealed=False), errno.EBADMSG, "sealed"),
    "a ledger of an older release": (LEDGER, lambda node, fds: copy_of_ledger(fds[LEDGER], version=1),
                                     errno.EPROTONOSUPPORT, "version 1"),
    "a ledger of a newer release": (LEDGER, lambda node, fds: copy_of_ledger(fds[LEDGER], version=99),
                                    errno.EPROTONOSUPPORT, "version 99"),
    "garbage of a ledger's size": (LEDGER, lambda node, fds: copy_of_ledger(os.open("/dev/zero", os.O_RDONLY)),
                                   errno.EBADMSG, "ledger"),
    "a source to read from": (SOURCE, lambda node, fds: os.open(node.sources, os.O_RDONLY), errno.EINVAL, "O_PATH"),
    "a file as the source": (SOURCE, lambda node, fds: os.open(node.sources / "data" / "hello", os.O_PATH),
                             errno.ENOTDIR, "source"),
}


@pytest.mark.parametrize("what", WRONG)
def test_descriptors_of_something_else_are_refused(node, volume, held, what):
    place, make, code, words = WRONG[what]
    before = kinds(node.keeper)
    wrong = make(node, held)
    fds = [wrong if i == place else fd for i, fd in enumerate(held)]
    reply = control.adopt(node.run_dir, "pv-1", fds)
    os.close(wrong)
    assert reply.code == -code and words in reply.text, reply.text
    assert control.listing(node.run_dir) == {}
    assert eventually(lambda: kinds(node.keeper) == before, what="descriptors to go")
    assert control.adopt(node.run_dir, "pv-1", held).code == 0  # and the right ones are as good as ever
    assert (volume.target() / "hello").read_text() == "world\n"


def test_descriptors_of_two_volumes_do_not_mix(node, volume):
    volume.stage()
    other = node.volume("pv-2", node.sources / "data")
    other.stage()
    one, two = (control.escrow(node.run_dir, v) for v in ("pv-1", "pv-2"))
    node.plugin.kill()
    next_keeper(node)
    mixes = [([one[0], one[1], two[2], one[3]], "another volume"), ([two[0], one[1], one[2], one[3]], "first"),
             (one[:3], "four"), ([], "four")]
    if "fuse_connection" in pathlib.Path(f"/proc/self/fdinfo/{one[DEVICE]}").read_text():  # older kernels don't tell
        mixes.append(([one[0], two[1], one[2], one[3]], "another connection"))
    for fds, words in mixes:
        reply = control.adopt(node.run_dir, "pv-1", fds)
        assert reply.code == -errno.EINVAL and words in reply.text, reply.text
    assert control.adopt(node.run_dir, "pv-1", one).code == 0
    assert control.adopt(node.run_dir, "pv-2", two).code == 0
    for fd in one + two:
        os.close(fd)


def test_a_volume_whose_ledger_the_next_keeper_can_not_read_is_healed(node, volume):
    """Not taken over: who has files open gets an error rather than a wait for ever."""
    target = volume.up()
    fds = control.escrow(node.run_dir, volume.id)
    os.kill(node.plugin.pid, signal.SIGSTOP)
    kill_keeper(node)
    os.pwrite(fds[LEDGER], struct.pack("=I", 99), 8)
    for fd in fds:
        os.close(fd)
    os.kill(node.plugin.pid, signal.SIGCONT)
    node.start_keeper()
    eventually(lambda: "has version 99" in node.plugin.text(), what="the refusal in the log")
    eventually(lambda: "was healed" in node.plugin.text(), what="the healing")
    volume.publish()
    assert (target / "hello").read_text() == "world\n"


def test_what_is_not_there_has_no_escrow(node):
    reply = control.call(node.run_dir, control.request(control.ESCROW, "nothing"))
    assert reply.code == -errno.ENOENT and "nothing" in reply.text and reply.fds == []
