# SPDX-License-Identifier: Apache-2.0
"""What becomes of workers that are killed, replaced, stopped or stuck, as operators and applications see it."""

import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest

from harness import BUILD, PATIENCE, AccessMode, Daemon, eventually

HANG_S = 0.4 * PATIENCE
READ_WRITE = {"access": AccessMode.SINGLE_NODE_MULTI_WRITER}


def ctl(node, *args, check=True):
    return subprocess.run([BUILD / "holdfastctl", "--run-dir", node.run_dir, *args], check=check, capture_output=True,
                          text=True, timeout=60)


@pytest.fixture
def volume(node):
    node.make_source("data", {"file": "content", "dir/other": "x"})
    return node.volume("data", attributes={"mode": "worker"}, **READ_WRITE)


class Load:
    """Makes and removes directories, and appends, for as long as it lasts; every call has to go well."""

    def __init__(self, target):
        self.target, self.ended, self.failures, self.rounds = target, threading.Event(), [], 0
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        log = self.target / "log"
        while not self.ended.is_set():
            try:
                os.mkdir(self.target / "d")
                with open(log, "ab", buffering=0) as f:
                    f.write(b"line %08d\n" % self.rounds)
                os.rename(self.target / "d", self.target / "e")
                os.rmdir(self.target / "e")
            except OSError as e:
                self.failures.append(repr(e))
                return
            self.rounds += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        self.thread.join()
        assert self.failures == []
        lines = (self.target / "log").read_bytes().splitlines()
        assert lines == [b"line %08d" % i for i in range(self.rounds)]


def test_restart_replaces_the_worker_under_load(node, volume):
    target = volume.up()
    with Load(target) as load:
        for _ in range(10):
            before = volume.worker()
            said = ctl(node, "restart", "data").stdout
            assert f"took over from {before}" in said
            done = load.rounds
            eventually(lambda: load.rounds > done or load.failures, what="the load to go on")
    assert volume.status()["restarts"] == 10
    assert "it was replaced" in volume.status()["reason"]
    volume.down()


def test_kill_is_a_takeover(node, volume):
    target = volume.up()
    with Load(target):
        for _ in range(5):
            ctl(node, "kill", "data")
    assert "for a drill" in volume.status()["reason"]
    volume.down()


def test_restart_takes_the_program_file_that_is_there_now(bare_node):
    program = bare_node.base / "worker"
    program.write_bytes((BUILD / "holdfast-fuse").read_bytes())
    program.chmod(0o755)
    bare_node.keeper.args += ["--worker", str(program)]
    bare_node.start()
    bare_node.make_source("data", {"file": "content"})
    volume = bare_node.volume("data", **READ_WRITE)
    target = volume.up()
    new = bare_node.base / "new"
    new.write_bytes(program.read_bytes() + b"another build")
    new.chmod(0o755)
    new.rename(program)
    assert os.stat(f"/proc/{volume.worker()}/exe").st_ino != program.stat().st_ino
    ctl(bare_node, "restart", "data")
    assert os.stat(f"/proc/{volume.worker()}/exe").st_ino == program.stat().st_ino
    assert (target / "file").read_text() == "content"
    volume.down()


def test_drill_tells_what_readers_saw(node, volume):
    volume.up()
    said = ctl(node, "drill", "data", "--kills", "3").stdout
    assert "3 kills" in said and "the root and file" in said and " 0 failed" in said and "p99.9" in said
    assert volume.status()["restarts"] == 3
    volume.down()


@pytest.mark.parametrize("verb", ["restart", "kill", "drill"])
def test_a_volume_that_is_not_there(node, verb):
    done = ctl(node, verb, "nobody", check=False)
    assert done.returncode == 1 and "no volume 'nobody'" in done.stderr


@pytest.mark.parametrize("kills", ["0", "x", "-1"])
def test_how_often_has_to_be_a_number(node, volume, kills):
    volume.up()
    done = ctl(node, "drill", "data", "--kills", kills, check=False)
    assert done.returncode == 1 and "--kills" in done.stderr
    volume.down()


@pytest.fixture
def quick_node(bare_node):
    """A node whose keeper notices soon."""
    bare_node.keeper.args += ["--hang-timeout", f"{HANG_S * 1000:.0f}ms"]
    return bare_node.start()


def test_a_worker_that_is_stopped_is_killed_and_taken_over(quick_node):
    quick_node.make_source("data", {"file": "content"})
    volume = quick_node.volume("data", attributes={"mode": "worker"}, **READ_WRITE)
    target = volume.up()
    pid = volume.worker()
    os.kill(pid, signal.SIGSTOP)
    (target / "made").mkdir()  # waits until somebody else does it
    assert volume.worker() != pid
    assert volume.status()["restarts"] == 1 and "it hung" in volume.status()["reason"]
    assert "worker is killed: it hung" in quick_node.keeper.text()
    volume.down()


def test_a_worker_with_nothing_to_do_may_be_stopped(quick_node):
    quick_node.make_source("data", {"file": "content"})
    volume = quick_node.volume("data", attributes={"mode": "worker"}, **READ_WRITE)
    volume.up()
    eventually(lambda: volume.status()["waiting"] == 0, what="nothing to do")
    pid = volume.worker()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(4 * HANG_S)  # nothing is to happen in it
    assert volume.status()["workerPid"] == pid
    os.kill(pid, signal.SIGCONT)
    volume.down()


def test_a_source_that_hangs_is_slow_and_not_dead(quick_node):
    """The source is itself a volume of another node, whose worker stands still."""
    inner = type(quick_node)(quick_node.base / "inner")
    inner.keeper.args += ["--hang-timeout", "0"]
    inner.start()
    try:
        inner.make_source("data", {"file": "content"})
        below = inner.volume("data", attributes={"mode": "worker", "attrTimeout": "0s", "entryTimeout": "0s"}, **READ_WRITE)
        source = below.up()
        quick_node.plugin.terminate()
        quick_node.plugin = Daemon("holdfast-csi", quick_node.plugin_args("--allow-source", str(source)),
                                   quick_node.base / "csi.log")
        quick_node.start_plugin()
        volume = quick_node.volume("outer", source, **READ_WRITE)
        target = volume.up()
        pid, stopped = volume.worker(), below.worker()
        os.kill(stopped, signal.SIGSTOP)
        reader = subprocess.Popen(["cat", str(target / "file")], stdout=subprocess.PIPE)
        eventually(lambda: volume.status()["sourceWaitMs"] > 1000, what="the wait to be noticed")
        assert volume.worker() == pid and volume.status()["restarts"] == 0
        assert "the source is slow or hangs" in quick_node.keeper.text()
        os.kill(stopped, signal.SIGCONT)
        assert reader.communicate(timeout=20)[0] == b"content"
        eventually(lambda: volume.status()["sourceWaitMs"] == 0, what="the end of the wait")
        volume.down()
        below.down()
    finally:
        inner.close()


@pytest.mark.parametrize("duration", ["1", "50ms", "soon", "-1s"])
def test_a_hang_timeout_that_is_none(bare_node, duration):
    done = subprocess.run([BUILD / "holdfast-keeper", "--run-dir", bare_node.run_dir, "--hang-timeout", duration],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and "--hang-timeout" in done.stderr


def test_a_request_is_answered_before_the_kernel_ends_the_volume_for_it(bare_node):
    """fs.fuse.max_request_timeout: the request to a source that hangs fails alone."""
    limit = pathlib.Path("/proc/sys/fs/fuse/max_request_timeout")
    if not limit.exists():
        pytest.skip("this kernel ends no volume for a slow request (Linux 6.15 does)")
    before = limit.read_text()
    inner = type(bare_node)(bare_node.base / "inner")
    inner.keeper.args += ["--hang-timeout", "0"]
    inner.start()
    try:
        inner.make_source("data", {"file": "content", "again": "content"})
        below = inner.volume("data", attributes={"mode": "worker", "attrTimeout": "0s", "entryTimeout": "0s"}, **READ_WRITE)
        source = below.up()
        limit.write_text("16")
        bare_node.plugin = Daemon("holdfast-csi", bare_node.plugin_args("--allow-source", str(source)),
                                  bare_node.base / "csi.log")
        bare_node.start()
        volume = bare_node.volume("outer", source, **READ_WRITE)
        target = volume.up()
        limit.write_text(before)  # it holds for connections that were made meanwhile
        stopped = below.worker()
        os.kill(stopped, signal.SIGSTOP)
        done = subprocess.run(["cat", str(target / "file")], capture_output=True, text=True, timeout=60)
        os.kill(stopped, signal.SIGCONT)
        assert "Input/output error" in done.stderr
        assert "before the kernel ends the volume" in bare_node.keeper.text()
        assert eventually(lambda: (target / "again").read_text(), what="the volume to go on") == "content"
        volume.down()
        below.down()
    finally:
        limit.write_text(before)
        inner.close()
