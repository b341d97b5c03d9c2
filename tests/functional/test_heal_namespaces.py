# SPDX-License-Identifier: Apache-2.0
"""Mounts in namespaces of all kinds: peers and slaves of the host's, locked ones, namespaces without a process, frozen ones."""

import os
import signal
import subprocess

import pytest

from container import Container
from harness import eventually
from healing import (ENDS, Namespace, healed, healing, inside, layers, look_again, make_volume, mounts_of, place_idmapped, read,
                     record, stay_inside, stays_the_same)
from mounting import bind, make_shared, umount


@pytest.fixture
def volume(node):
    return make_volume(node)


@pytest.fixture
def shared_volume(bare_node):
    """Of a node whose directory is a shared mount, as kubelet's is where volumes propagate."""
    bind(bare_node.base, bare_node.base)
    make_shared(bare_node.base)
    bare_node.start()
    return make_volume(bare_node)


@pytest.mark.parametrize("end", ENDS)
def test_peers_and_slaves_of_the_host(shared_volume, end):
    volume, node = shared_volume, shared_volume.node
    volume.stage()
    early = Namespace(node)  # what is mounted from now on comes by propagation
    target = volume.publish()
    kinds = {kind: Namespace(node, "--propagation", kind) for kind in ("unchanged", "slave", "private", "shared")}
    slave_of_slave = Namespace(node, "--propagation", "slave", inside=kinds["slave"].pid)
    containers = {f"container {p}": Container(node, {"/data": (target, [p]), "/sub": (target / "sub", ["ro", p])}, propagation=p)
                  for p in ("rprivate", "rslave", "rshared")}
    pids = {"host": "self", "early": early.pid, "slave of slave": slave_of_slave.pid,
            **{name: n.pid for name, n in (kinds | containers).items()}}
    for _ in range(3):
        stays_the_same(volume, pids, end)
        assert [read(pid, f"{target}/f") for name, pid in pids.items() if "container" not in name] == ["hello\n"] * 7
        assert [read(c.pid, "/data/f") + read(c.pid, "/sub/g") for c in containers.values()] == ["hello\nbelow\n"] * 3
    for container in containers.values():
        container.remove()
    volume.down()  # and propagation goes on as before
    for name in ("early", "unchanged", "shared", "slave", "slave of slave"):
        assert mounts_of(volume, pids[name]) == [], name
    # removing the target's directory took its mount there along; the staging path is kubelet's to remove
    assert [m["target"] for m in mounts_of(volume, pids["private"])] == [str(volume.staging)]


def test_mounts_made_in_a_container_still_reach_the_host(shared_volume):
    """Mount propagation "Bidirectional", after a healing: what a container mounts below the volume is seen outside."""
    volume, node = shared_volume, shared_volume.node
    target = volume.up()
    container = Container(node, {"/data": (target, ["rshared"])}, propagation="rshared")
    listener = Container(node, {"/data": (target, ["rslave"])}, propagation="rslave")
    stays_the_same(volume, {"host": "self", "container": container.pid, "listener": listener.pid})
    inside(container.pid, "tmpfs('/data/sub'); open('/data/sub/new', 'w').write('from inside')")
    assert (target / "sub" / "new").read_text() == read(listener.pid, "/data/sub/new") == "from inside"
    inside(container.pid, "umount('/data/sub')")
    assert (target / "sub" / "g").read_text() == read(listener.pid, "/data/sub/g") == "below\n"


def test_peers_with_different_id_mappings(shared_volume):
    """A copy keeps the mapping of what it is made of, for good: so the new mounts are not copied from just any peer."""
    volume, node = shared_volume, shared_volume.node
    target = volume.up()
    namespace = Namespace(node, "--propagation", "private")
    place_idmapped(target, "0 100000 65536", "0 100000 65536", namespace.pid, "/mnt")
    assert layers(namespace.pid, "/mnt")[0]["optional"] == layers("self", target)[0]["optional"] != []
    for _ in range(2):
        stays_the_same(volume, {"host": "self", "namespace": namespace.pid})
        assert (target / "f").stat().st_uid == 0
        assert os.stat(f"/proc/{namespace.pid}/root/mnt/f").st_uid == 100000


@pytest.mark.parametrize("propagation", ("private", "slave"))
def test_locked_mounts_are_mounted_over_once(shared_volume, propagation):
    """A namespace of another user namespace may not lose what it inherited (mount_namespaces(7))."""
    volume, node = shared_volume, shared_volume.node
    target = volume.up()
    sub = node.base / "sub"
    sub.mkdir()
    bind(target / "sub", sub)
    locked = Namespace(node, "-U", "-r", "--propagation", propagation)
    for i in range(4):
        healed(volume)
        assert read(locked.pid, f"{target}/f") == "hello\n" and read(locked.pid, f"{sub}/g") == "below\n", i
        assert 1 <= len(layers(locked.pid, target)) <= 2 and 1 <= len(layers(locked.pid, sub)) <= 2, i
        assert healing(volume)["staleMounts"] == 0
    assert (target / "f").read_text() == "hello\n" and len(layers("self", target)) == 1


def test_locked_mounts_in_a_container(node, volume):
    """`unshare --user --mount` by an application."""
    container = Container(node, {"/data": (volume.up(), []), "/sub": (volume.target() / "sub", ["ro"])})
    application = container.popen("unshare", "-U", "-r", "-m", "sh", "-c", "echo ready && exec sleep 100000")
    assert application.stdout.readline() == "ready\n", application.stderr.read()
    locked, = container.others()
    for i in range(4):
        healed(volume)
        assert read(locked, "/data/f") + read(locked, "/sub/g") == "hello\nbelow\n", i
        assert len(layers(locked, "/data")) == len(layers(locked, "/sub")) == 2, i
        assert "ro" in layers(locked, "/sub")[-1]["options"]
    assert read(container.pid, "/data/f") == "hello\n" and len(layers(container.pid, "/data")) == 1


def newer_namespace(node, handle):
    """One with a higher number than ours, as mounts of nsfs need it; the kernel does not give them in order."""
    namespace = Namespace(node, "--propagation", "private")
    try:
        bind(f"/proc/{namespace.pid}/ns/mnt", handle)
        return namespace
    except OSError:
        return namespace.remove()


@pytest.mark.parametrize("held_by", ("mount", "descriptor"))
def test_a_namespace_without_a_process(node, volume, held_by):
    target = volume.up()
    handle = node.base / "namespace"
    handle.touch()
    namespace = eventually(lambda: newer_namespace(node, handle), what="a namespace that may be bound")
    fd = os.open(f"/proc/{namespace.pid}/ns/mnt", os.O_RDONLY)
    if held_by == "mount":
        os.close(fd)
    else:
        umount(handle)
    namespace.remove()
    healed(volume)
    path = handle if held_by == "mount" else f"/proc/self/fd/{fd}"
    said = subprocess.run(["nsenter", f"--mount={path}", "sh", "-c", f"cat {target}/f; grep -c ' {target} ' /proc/self/mountinfo"],
                          capture_output=True, text=True, pass_fds=[fd] if held_by == "descriptor" else [], timeout=20)
    assert said.stdout == "hello\n1\n", said
    if held_by == "mount":
        umount(handle)
    else:
        os.close(fd)


def test_a_paused_container(node, volume):
    container = Container(node, {"/data": (volume.up(), []), "/sub": (volume.target() / "sub", ["ro"])})
    pid = container.pid
    reader = container.popen("sh", "-c", "while :; do cat /data/f || true; sleep 0.01; done")
    assert reader.stdout.readline() == "hello\n"
    container.pause()
    try:
        stays_the_same(volume, {"host": "self", "container": pid})
    finally:
        container.resume()
    assert container.exec("cat", "/data/f", "/sub/g") == "hello\nbelow\n"
    container.remove()


def test_a_stopped_container(node, volume):
    """SIGSTOP to all of it, one process in the middle of a read that nobody answers."""
    container = Container(node, {"/data": (volume.up(), [])}, runtime="crun")
    pid = container.pid
    os.kill(pid, signal.SIGSTOP)
    stays_the_same(volume, {"host": "self", "container": pid})
    os.kill(pid, signal.SIGCONT)
    assert container.exec("cat", "/data/f") == "hello\n"


def test_open_files_and_working_directories_are_counted(node, volume):
    target = volume.up()
    container = Container(node, {"/data": (volume.target(), [])})
    sleeper = container.popen("sh", "-c", "cd /data/sub && exec 5</data/f && echo ready && exec sleep 100000")
    assert sleeper.stdout.readline() == "ready\n"
    held = os.open(target / "f", os.O_RDONLY)
    healed(volume)
    assert healing(volume)["staleFiles"] == 3
    assert "3 open files and directories stay on an earlier connection" in node.plugin.text()
    assert container.exec("cat", "/data/f") == "hello\n"
    os.close(held)
    look_again(volume)
    assert healing(volume)["staleFiles"] == 2
    container.remove()
    look_again(volume)
    assert healing(volume)["staleFiles"] == 0


# namespaces that do harm


def test_a_namespace_whose_proc_hangs(node, volume):
    """Whoever may make a user namespace may mount FUSE over /proc in it. Nothing of ours is looked up there."""
    target = volume.up()
    namespace = Namespace(node, "--propagation", "private")
    stay_inside(node, namespace.pid, "fds = [hung_fuse(path) for path in ('/proc', '/sys', '/run', '/dev')]")
    stays_the_same(volume, {"host": "self", "namespace": namespace.pid})
    assert read(namespace.pid, f"{target}/f") == "hello\n"
    assert healing(volume)["lastPauseMs"] < 2000 and "hangs" not in node.plugin.text()


def test_a_path_that_hangs_holds_nobody_up(node, volume):
    target = volume.up()
    namespaces = [Namespace(node, "--propagation", "private") for _ in range(4)]
    pods = node.kubelet_root / "pods"
    hung = stay_inside(node, namespaces[1].pid, "fd = hung_fuse(args[0])", pods)
    healed(volume)
    for n in namespaces[:1] + namespaces[2:]:
        assert read(n.pid, f"{target}/f") == "hello\n"
    assert (target / "f").read_text() == "hello\n"
    assert f"the way to {target} in mount namespace" in node.plugin.text()
    assert healing(volume)["staleMounts"] == 1
    hung.remove()
    inside(namespaces[1].pid, "umount(args[0])", pods)
    look_again(volume)
    assert read(namespaces[1].pid, f"{target}/f") == "hello\n" and len(layers(namespaces[1].pid, target)) == 1
    assert healing(volume)["staleMounts"] == 0
