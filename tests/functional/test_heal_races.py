# SPDX-License-Identifier: Apache-2.0
"""Healing while something else happens: containers come and go, kubelet calls, an application swaps paths."""

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from container import Container
from harness import eventually, mountinfo
from healing import Namespace, abort, healed, healing, layers, make_volume, mounts_of, reads, record, try_abort

Code = grpc.StatusCode


@pytest.fixture
def volume(node):
    return make_volume(node)


@contextlib.contextmanager
def aborting(volume, pause=0.05):
    """Each connection that the volume gets is aborted after a moment."""
    done, failures = threading.Event(), []

    def run():
        last = 0
        while not done.wait(pause):
            try:
                last = try_abort(volume, unless=last) or last
            except Exception as e:  # noqa: BLE001 (reported below)
                failures.append(repr(e))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(20)
    assert failures == []


def ends_well(volume, containers):
    """No container is left with a stale mount, or with more than one."""
    for c, path in containers:
        eventually(lambda: reads(c, f"{path}/f") == "hello\n", what=lambda: f"{path} in {c}: {volume.node.plugin.text()[-2000:]}")
    eventually(lambda: healing(volume)["staleMounts"] == 0, what="the record")
    for c, path in containers:
        assert len(layers(c, path)) == 1
        assert {os.minor(record(volume)["dev"])} == {int(m["dev"].split(":")[1]) for m in mounts_of(volume, c)}


def test_containers_that_are_being_started(node, volume):
    target = volume.up()

    def start(i):
        end = time.monotonic() + 30
        while True:
            try:
                return Container(node, {"/data": (target, []), "/again": (target / "sub", [])}, runtime=("runc", "crun")[i % 2])
            except (AssertionError, OSError) as e:  # the runtime looked at the path just then: kubelet starts it again
                assert time.monotonic() < end and any(w in str(e) for w in ("ot connected", "o such file", "onnection abort")), e
                time.sleep(0.05)

    with aborting(volume, 0.15), ThreadPoolExecutor(2) as pool:
        containers = list(pool.map(start, range(20)))
    assert healing(volume)["deaths"] > 3
    ends_well(volume, [(c.pid, "/data") for c in containers])
    for c in containers:
        assert reads(c.pid, "/again/g") == "below\n" and len(layers(c.pid, "/again")) == 1


def test_namespaces_that_are_being_made(node, volume):
    """Faster than any runtime is."""
    target = volume.up()
    with aborting(volume, 0.03):
        made = [Namespace(node, "--propagation", "private") for _ in range(150)]
    ends_well(volume, [(n.pid, str(target)) for n in made] + [("self", str(target))])


def test_containers_that_are_killed(node, volume):
    target = volume.up()
    containers = [Container(node, {"/data": (target, [])}, runtime=("runc", "crun")[i % 2]) for i in range(12)]
    pids = [c.pid for c in containers]
    for i in range(0, 10, 2):
        abort(volume)
        for pid in pids[i:i + 2]:
            os.kill(pid, signal.SIGKILL)
    ends_well(volume, [(pid, "/data") for pid in pids[10:]] + [("self", str(target))])
    assert "stale mount" not in node.plugin.text()


def test_targets_that_come_and_go(node, volume):
    volume.up()
    known = volume.publish("pod-0")

    def kubelet(pod):
        for _ in range(30):
            insist(lambda: volume.publish(pod))
            insist(lambda: volume.unpublish(pod))

    with aborting(volume, 0.15), ThreadPoolExecutor(3) as pool:  # a call that heals has to come to its end at times
        for future in [pool.submit(kubelet, f"pod-{i}") for i in range(2, 5)]:
            future.result(100)
    ends_well(volume, [("self", str(known)), ("self", str(volume.target()))])
    assert {m["target"] for m in mounts_of(volume)} == {str(p) for p in (volume.staging, known, volume.target())}
    volume.unpublish("pod-0")
    volume.down()
    assert node.is_clean()


def test_volumes_that_come_and_go(node, volume):
    for _ in range(25):
        insist(volume.up)
        with aborting(volume, 0.002):
            insist(volume.unpublish)
            insist(volume.unstage)
        assert mounts_of(volume) == []
    assert node.is_clean()


def insist(call):
    """As kubelet does, a little faster."""
    end = time.monotonic() + 60
    while True:
        try:
            return call()
        except grpc.RpcError as e:
            assert e.code() in (Code.ABORTED, Code.UNAVAILABLE) and time.monotonic() < end, f"{e.code()}: {e.details()}"
            time.sleep(0.02)


# paths that an application swaps


def test_a_directory_above_the_mount_is_swapped_for_a_link(node, volume):
    """In the container's own file system, which is the application's."""
    container = Container(node, {"/app/dir/data": (volume.up(), [])})
    container.exec("mkdir", "-p", "/elsewhere/data", "/app/other/data")
    swapper = container.popen("sh", "-c", """
        echo ready
        while [ ! -e /stop ]; do
            mv /app/dir /app/away; ln -s /elsewhere /app/dir; rm /app/dir; mkdir -p /app/dir/data
            mv /app/dir /app/third; ln -s other /app/dir; rm /app/dir; rm -r /app/third; mv /app/away /app/dir
        done""")
    assert swapper.stdout.readline() == "ready\n"
    pid = container.pid
    known = len(mountinfo(pid))
    for _ in range(40):
        healed(volume)
        assert {m["target"] for m in mountinfo(pid) if m["source"] == f"holdfast:{volume.id}"} <= {
            "/app/dir/data", "/app/away/data"}
    container.exec("touch", "/stop")
    swapper.communicate(timeout=20)
    eventually(lambda: reads(pid, "/app/dir/data/f") == "hello\n", timeout=40, what="the mount to be healed")
    assert len(layers(pid, "/app/dir/data")) == 1 and len(mountinfo(pid)) == known
    assert container.exec("ls", "/elsewhere/data", "/app/other/data") == "/app/other/data:\n\n/elsewhere/data:\n"


def test_a_sub_path_is_swapped_for_a_link(node, volume):
    """CVE-2021-25741: one container has the volume, the other one a sub-directory, and shall not see more."""
    target = volume.up()
    writer = Container(node, {"/data": (target, [])})
    reader = Container(node, {"/sub": (target / "sub", [])})
    swapper = writer.popen("sh", "-c", """
        cd /data; echo ready
        while [ ! -e /stop ]; do
            cd /data && mv sub away && ln -s . sub && rm sub && ln -s / sub && rm sub && mv away sub
            [ -d sub ] || { rm -f sub; mv away sub; }
        done 2>/dev/null""")
    assert swapper.stdout.readline() == "ready\n"
    pid = reader.pid
    for _ in range(40):
        healed(volume)
        for m in layers(pid, "/sub"):
            assert m["root"].removesuffix("//deleted") in ("/sub", "/away") and m["source"] == f"holdfast:{volume.id}"
        assert reads(pid, "/sub/f") != "hello\n" and reads(pid, "/sub/etc/passwd") in ("ENOENT", "ENOTCONN", "ECONNABORTED")
    writer.exec("touch", "/stop")
    swapper.communicate(timeout=20)
    source = node.sources / volume.id
    if not (source / "sub").is_dir() or (source / "sub").is_symlink():
        (source / "sub").unlink(missing_ok=True)
        (source / "away").rename(source / "sub")
    eventually(lambda: reads(pid, "/sub/g") == "below\n", timeout=40, what=f"the mount to be healed {layers(pid, '/sub')}")
    assert len(layers(pid, "/sub")) == 1
