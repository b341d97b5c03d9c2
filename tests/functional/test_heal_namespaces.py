# SPDX-License-Identifier: Apache-2.0
"""Mounts in namespaces of all kinds: peers and slaves of the host's, locked ones, namespaces without a process, frozen ones."""

import os
import pathlib
import signal
import subprocess

import pytest

from container import Container
from harness import PATIENCE, eventually, mountinfo
from healing import (ENDS, NAMES_STAY, Namespace, healed, healing, inside, is_zombie, layers, look_again, make_volume, mounts_of,
                     place_idmapped, read, record, rename_group, stay_inside, stays_the_same)
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


def below(places, groups):
    """What is mounted below a path in each namespace."""
    return {name: [(m["target"][len(str(path)):], m["source"], m["root"], m["options"],
                    tuple(rename_group(o, groups) for o in m["optional"] if not o.startswith("propagate_from")))
                   for m in mountinfo(pid) if m["target"].startswith(f"{path}/")] for name, (pid, path) in places.items()}


def test_what_is_mounted_below_peers_stays_in_all(bare_node):
    """Unmounting a dead mount with what lies below it would take that along everywhere; mounting it on one of the new mounts would
    mount it in all."""
    bind(bare_node.base, bare_node.base)
    make_shared(bare_node.base)
    bare_node.start()
    volume = make_volume(bare_node, attributes=NAMES_STAY)
    target = volume.up()
    early = Namespace(bare_node)
    container = Container(bare_node, {"/data": (target, ["rshared"])}, propagation="rshared")
    listener = Container(bare_node, {"/data": (target, ["rslave"])}, propagation="rslave")
    inside(container.pid, """
        import os
        tmpfs('/data/sub'); os.mkdir('/data/sub/x'); tmpfs('/data/sub/x'); open('/data/sub/x/mine', 'w').write('everywhere')""")
    inside(listener.pid, "tmpfs('/data/one'); open('/data/one/mine', 'w').write('here')")
    places = {"staging": ("self", volume.staging), "target": ("self", target), "early": (early.pid, target),
              "container": (container.pid, "/data"), "listener": (listener.pid, "/data")}
    before = below(places, {})
    assert [len(mounts) for mounts in before.values()] == [2, 2, 2, 2, 3], before
    for end in ("abort", "abort", "kill"):
        stays_the_same(volume, {name: pid for name, (pid, _) in places.items()}, end)
        assert below(places, {}) == before, bare_node.plugin.text()[-3000:]
        assert [read(pid, f"{path}/sub/x/mine") for pid, path in places.values()] == ["everywhere"] * 5
        assert read(listener.pid, "/data/one/mine") == "here"
        assert "was lost" not in bare_node.plugin.text()
    inside(container.pid, "umount('/data/sub/x'); umount('/data/sub')")  # and propagation goes on as before
    assert [len(mounts) for mounts in below(places, {}).values()] == [0, 0, 0, 0, 1]


def test_peers_that_are_slaves_too(shared_volume):
    volume, node = shared_volume, shared_volume.node
    target = volume.up()
    slave = Container(node, {"/data": (target, ["rslave"])}, propagation="rslave")
    inside(slave.pid, "import os; make_shared('/data'); os.mkdir('/again'); bind('/data', '/again')")
    pids = {"host": "self", "container": slave.pid}
    assert any(len(m["optional"]) == 2 for m in mounts_of(volume, slave.pid))
    for _ in range(2):
        stays_the_same(volume, pids)
        assert read(slave.pid, "/data/f") == read(slave.pid, "/again/f") == "hello\n"


def test_peers_with_different_id_mappings(shared_volume):
    """A copy would keep the mapping of what it is made of, for good."""
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


def test_locked_layers_are_mounted_over_once(shared_volume):
    """Who goes to a user namespace after a healing inherits two layers, and may lose neither."""
    volume, node = shared_volume, shared_volume.node
    target = volume.up()
    outer = Namespace(node, "-U", "-r", "--propagation", "private")
    healed(volume)
    locked = Namespace(node, "-U", "-r", "--propagation", "private", inside=outer.pid)
    assert len(layers(locked.pid, target)) == 2
    for i in range(3):
        healed(volume)
        assert read(locked.pid, f"{target}/f") == read(outer.pid, f"{target}/f") == "hello\n", i
        assert len(layers(locked.pid, target)) == 3 and len(layers(outer.pid, target)) == 2, i
        assert healing(volume)["staleMounts"] == 0


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
    assert healing(volume)["lastPauseMs"] < 2000 * PATIENCE and "hangs" not in node.plugin.text()


def helpers(node):
    children = pathlib.Path(f"/proc/{node.plugin.pid}/task").glob("*/children")
    pids = [pid for path in children for pid in path.read_text().split()]
    return [pid for pid in pids if not is_zombie(pid) and pathlib.Path(f"/proc/{pid}/comm").read_text() == "holdfast-nsmoun\n"]


@pytest.mark.parametrize("how", ("hung_fuse", "silent_fuse"))
def test_a_path_that_hangs_holds_nobody_up(node, volume, how):
    target = volume.up()
    namespaces = [Namespace(node, "--propagation", "private") for _ in range(4)]
    pods = node.kubelet_root / "pods"
    hung = stay_inside(node, namespaces[1].pid, f"fd = {how}(args[0])", pods)
    healed(volume)
    for n in namespaces[:1] + namespaces[2:]:
        assert read(n.pid, f"{target}/f") == "hello\n"
    assert (target / "f").read_text() == "hello\n"
    assert f"the way to {target} in mount namespace" in node.plugin.text()
    assert healing(volume)["staleMounts"] == 1
    for _ in range(3):  # it is found again, and nobody else goes to where one is stuck
        look_again(volume)
        eventually(lambda: len(helpers(node)) == (how == "silent_fuse"), what=lambda: f"{helpers(node)}")
    hung.remove()
    eventually(lambda: not helpers(node), what="the stuck one to end")
    inside(namespaces[1].pid, "umount(args[0])", pods)
    look_again(volume)
    assert read(namespaces[1].pid, f"{target}/f") == "hello\n" and len(layers(namespaces[1].pid, target)) == 1
    assert healing(volume)["staleMounts"] == 0
