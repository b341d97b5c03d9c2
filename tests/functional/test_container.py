# SPDX-License-Identifier: Apache-2.0
"""What a pod sees: real containers with volumes bind-mounted into them."""

import hashlib
import os
import signal
import threading
import time

import pytest

from container import Container
from harness import AccessMode, eventually

READ_WRITE = AccessMode.SINGLE_NODE_MULTI_WRITER


@pytest.mark.parametrize("runtime", ("runc", "crun"))
def test_a_container_reads_a_dataset_and_cannot_write_it(node, runtime):
    content = os.urandom(3 << 20)
    node.make_source("data", {"big": content, "d/small": "hello"})
    volume = node.volume("data")
    container = Container(node, {"/data": (volume.up(readonly=True), ["ro"])}, runtime=runtime)
    assert container.exec("cat", "/data/d/small") == "hello"
    assert container.exec("md5sum", "/data/big").split()[0] == hashlib.md5(content).hexdigest()
    said = container.exec("sh", "-c", "(echo x > /data/new) 2>&1; true")
    assert "Read-only file system" in said
    container.remove()
    volume.down()
    assert node.is_clean()


def test_what_a_container_writes_is_in_the_source_as_its_own_user(node):
    source = node.make_source("data")
    source.chmod(0o1777)
    volume = node.volume("data", access=READ_WRITE)
    container = Container(node, {"/data": (volume.up(), [])})
    container.exec("sh", "-c", "umask 027; mkdir /data/d; echo hello > /data/d/f; ln /data/d/f /data/d/g", user="1234:4321")
    st = (source / "d" / "f").stat()
    assert (st.st_uid, st.st_gid, oct(st.st_mode & 0o7777), st.st_nlink) == (1234, 4321, "0o640", 2)
    assert oct((source / "d").stat().st_mode & 0o7777) == "0o750"
    assert (source / "d" / "g").read_text() == "hello\n"
    container.remove()
    volume.down()


def test_a_container_with_a_user_namespace_reads(node):
    node.make_source("data", {"f": "hello"})
    volume = node.volume("data")
    mappings = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    for directory in (node.base, node.base / "containers"):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
    container = Container(node, {"/data": (volume.up(readonly=True), ["ro", "nosuid", "nodev"])}, mappings=mappings)
    assert container.exec("cat", "/data/f") == "hello"


def test_two_pods_share_a_volume(node):
    node.make_source("data", {"f": "one"})
    volume = node.volume("data", access=READ_WRITE)
    volume.stage()
    first = Container(node, {"/data": (volume.publish("pod-1"), [])})
    second = Container(node, {"/data": (volume.publish("pod-2"), [])})
    first.exec("sh", "-c", "echo two > /data/f")
    assert second.exec("cat", "/data/f") == "two\n"
    first.remove()
    volume.unpublish("pod-1")
    assert second.exec("cat", "/data/f") == "two\n"
    second.remove()
    volume.unpublish("pod-2")
    volume.unstage()
    assert node.is_clean()


@pytest.mark.parametrize("attributes", ({}, {"consistency": "immutable"}, {"mode": "worker"}), ids=("auto", "immutable", "worker"))
def test_a_container_that_reads_sees_no_error_when_the_worker_is_killed(node, attributes):
    files = {f"d{i % 4}/f{i}": os.urandom(20000) for i in range(40)}
    node.make_source("data", files)
    volume = node.volume("data", attributes=attributes)
    container = Container(node, {"/data": (volume.up(readonly=True), ["ro"])})
    sums = {hashlib.md5(content).hexdigest() for content in files.values()}
    reader = container.popen("sh", "-c", "while :; do find /data -type f -exec md5sum {} + || echo FAILED; done")
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(reader.stdout), daemon=True)
    thread.start()
    for i in range(15):
        before = len(seen)
        volume.kill_worker()
        eventually(lambda: len(seen) > before + 10, what=f"reads after kill {i + 1}")
    container.exec("sh", "-c", "kill -9 -1 || true")
    thread.join(20)
    errors = reader.stderr.read()
    assert volume.status()["restarts"] == 15
    assert not [line for line in seen if "FAILED" in line], errors
    assert {line.split()[0] for line in seen if line.endswith("\n") and len(line) > 33} <= sums
    assert len(seen) > 150


def test_an_open_file_is_read_on_while_no_worker_lives(node):
    """Where the kernel reads it itself; elsewhere the read waits for the next worker."""
    content = os.urandom(4 << 20)
    node.make_source("data", {"big": content})
    volume = node.volume("data")
    target = volume.up()
    alone, keeper = volume.is_passthrough(), node.keeper.pid
    with open(target / "big", "rb") as f:
        assert f.read(10) == content[:10]
        os.kill(keeper, signal.SIGSTOP)  # nobody starts the next worker
        try:
            os.kill(volume_worker := node.workers()[0], signal.SIGKILL)
            time.sleep(0.1)
            if not alone:
                threading.Timer(1, os.kill, (keeper, signal.SIGCONT)).start()
            assert f.read() == content[10:]
            assert not alone or os.path.exists(f"/proc/{volume_worker}")  # a zombie: not even reaped
        finally:
            os.kill(node.keeper.pid, signal.SIGCONT)
    assert (target / "big").read_bytes() == content


def test_writes_survive_the_death_of_the_worker(node):
    source = node.make_source("data")
    volume = node.volume("data", access=READ_WRITE)
    target = volume.up()
    with open(target / "log", "wb", buffering=0) as f:
        for i in range(300):
            f.write(b"%06d\n" % i)
            if i % 30 == 10:
                volume.kill_worker()
    assert (source / "log").read_bytes() == b"".join(b"%06d\n" % i for i in range(300))
    volume.down()
