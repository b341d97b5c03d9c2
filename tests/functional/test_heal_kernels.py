# SPDX-License-Identifier: Apache-2.0
"""Healing on kernels that lack a call, many times over, and without anything left behind."""

import os
import pathlib
from collections import Counter

import pytest

from container import Container
from harness import BUILD, mountinfo
from healing import (NAMES_STAY, Namespace, healed, healing, inside, is_zombie, layers, look_again, make_volume, mounts_of,
                     place_idmapped, read, record, stays_the_same)
from mounting import bind, make_shared

SECCOMP = pathlib.Path(__file__).resolve().parent / "seccomp_exec.py"
CYCLES = int(os.environ.get("HOLDFAST_HEAL_CYCLES", "30"))
LACKS = ("beneath", "namespaces", "statmount", "beneath,namespaces,statmount")


@pytest.fixture
def older(bare_node, request):
    """A node whose directory is shared, and whose plugin runs on a kernel that lacks something."""
    bind(bare_node.base, bare_node.base)
    make_shared(bare_node.base)
    plugin = bare_node.plugin
    plugin.args = [request.param, str(BUILD / plugin.name), *plugin.args]
    plugin.path = str(SECCOMP)
    bare_node.start()
    return bare_node


@pytest.mark.parametrize("older", LACKS, indirect=True)
def test_an_older_kernel(older):
    node = older
    volume, other = (make_volume(node, attributes=NAMES_STAY) for _ in range(2))
    target = volume.up()
    other.up()
    os.chown(node.sources / volume.id / "f", 7, 8)
    containers = [Container(node, {"/data": (target, [p]), "/data/sub": (other.target() / "sub", ["ro"]),
                                   "/single": (target / "f", ["ro", "noexec"])}, runtime=r, propagation=p)
                  for p, r in (("rprivate", "runc"), ("rslave", "crun"))]
    peer, private = Namespace(node), Namespace(node, "--propagation", "private")
    locked = Namespace(node, "-U", "-r", "--propagation", "private")
    inside(containers[0].pid, "tmpfs('/data/one'); open('/data/one/mine', 'w').write('kept'); bind('/data', '/tmp'); tmpfs('/tmp')")
    pids = {"host": "self", "peer": peer.pid, "private": private.pid, **{f"c{i}": c.pid for i, c in enumerate(containers)}}
    for _ in range(3):
        for v in (volume, other):
            stays_the_same(v, pids)
        for c in containers:
            assert read(c.pid, "/data/f") + read(c.pid, "/data/sub/g") + read(c.pid, "/single") == "hello\nbelow\nhello\n"
        assert read(containers[0].pid, "/data/one/mine") == "kept" and len(layers(containers[0].pid, "/tmp")) == 2
        assert [read(n.pid, f"{target}/f") for n in (peer, private, locked)] == ["hello\n"] * 3
        assert len(layers(locked.pid, target)) == 2
    for c in containers:
        c.remove()
    for v in (volume, other):
        v.down()


@pytest.mark.parametrize("older", ("statmount", "beneath,namespaces,statmount"), indirect=True)
def test_an_id_mapping_that_the_kernel_does_not_tell(older):
    """Then it is that of the container."""
    node = older
    for directory in (node.base, node.base / "containers"):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
    volume = make_volume(node)
    target = volume.up()
    os.chown(node.sources / volume.id / "f", 7, 8)
    container = Container(node, {"/data": (target, ["nosuid", "nodev"])},
                          mappings=[{"containerID": 0, "hostID": 100000, "size": 65536}])
    place_idmapped(target, "0 100000 65536", "0 100000 65536", container.pid, "/tmp")
    stays_the_same(volume, {"host": "self", "container": container.pid})
    assert container.exec("stat", "-c", "%u:%g", "/tmp/f", "/data/f") == "7:8\n65534:65534\n"


def held(daemon):
    """What a process has, but for sockets and pidfds, which come and go with those who ask; and how many threads."""
    kinds = Counter(link.split(":[")[0].split(" (deleted)")[0] for link in daemon.fds()
                    if not link.startswith("socket:") and link != "anon_inode:[pidfd]")
    tasks = list(pathlib.Path(f"/proc/{daemon.pid}/task").iterdir())
    children = [int(c) for t in tasks for c in (t / "children").read_text().split()]
    return (kinds, len(children), sum(map(is_zombie, children))), len(tasks)


def at_rest(volume):
    """What keeper and plugin have once the watchdog has nothing to do."""
    look_again(volume)
    return held(volume.node.keeper), held(volume.node.plugin)


def mounted(pids):
    return [Counter(m["target"] for m in mountinfo(pid)) for pid in pids]


def test_nothing_grows(bare_node):
    """Many healings of one set of mounts."""
    node = bare_node
    bind(node.base, node.base)
    make_shared(node.base)
    node.start()
    volume = make_volume(node, attributes=NAMES_STAY)
    target = volume.up()
    containers = [Container(node, {"/data": (target, [p]), "/sub": (target / "sub", ["ro"]), "/data/one": (target / "sub", [])},
                            runtime=r, propagation=p) for p, r in (("rprivate", "runc"), ("rslave", "crun"))]
    locked = Namespace(node, "-U", "-r", "--propagation", "private")
    inside(containers[0].pid, "tmpfs('/data/sub'); bind('/data', '/tmp'); tmpfs('/tmp')")
    namespaces = [Namespace(node), Namespace(node, "--propagation", "slave"), locked]
    pids = ["self"] + [c.pid for c in containers + namespaces]
    healed(volume)
    mounts = mounted(pids)
    assert mounts[0][str(target)] == 1 and mounts[-1][str(target)] == 2
    kills = CYCLES // 5
    for i in range(CYCLES):
        if i == kills:
            before = at_rest(volume)
        healed(volume, "kill" if i < kills else "abort")
        assert mounted(pids) == mounts, i
        assert read(containers[0].pid, "/data/f") == read(locked.pid, f"{target}/f") == "hello\n"
    for (had, threads), (has, more_threads) in zip(before, at_rest(volume)):
        assert has == had and more_threads <= threads + 3  # gRPC starts some by itself
    assert healing(volume)["deaths"] == healing(volume)["healings"] == CYCLES + 1
    assert healing(volume)["staleMounts"] == 0
    for c in containers + namespaces:
        c.remove()
    volume.down()
    assert mounts_of(volume) == []
    assert node.is_clean()
