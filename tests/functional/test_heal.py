# SPDX-License-Identifier: Apache-2.0
"""A connection that ended for good: every mount of the volume is exchanged, also in running containers, and looks as before."""

import os

import pytest

from container import Container
from harness import mountinfo
from healing import ENDS, NAMES_STAY, Namespace, healing, inside, layers, make_volume, mounts_of, place_idmapped, read, stays_the_same

RUNTIMES = ("runc", "crun")


@pytest.fixture
def volume(node):
    return make_volume(node)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("end", ENDS)
def test_every_way_to_mount_a_volume_in_a_container(node, volume, runtime, end):
    target = volume.up()
    container = Container(node, {
        "/data": (target, []),
        "/ro": (target, ["ro", "nosuid", "nodev"]),
        "/noexec": (target, ["noexec", "noatime"]),
        "/nodiratime": (target, ["strictatime", "nodiratime", "nosuid"]),
        "/sub": (target / "sub", ["ro"]),
        "/deep": (target / "sub" / "deep", []),
        "/single": (target / "one" / "file", ["ro"]),
        "/slave": (target, ["rslave"]),
        "/shared": (target, ["rshared"]),
    }, runtime=runtime)
    pid = container.pid
    stays_the_same(volume, {"host": "self", "container": pid}, end)
    assert container.exec("cat", "/data/f", "/ro/f", "/noexec/f", "/nodiratime/f", "/slave/f", "/shared/f") == "hello\n" * 6
    assert container.exec("cat", "/sub/g", "/deep/h", "/single") == "below\ndeeper\nsingle\n"
    assert container.exec("ls", "/sub", "/deep") == "/deep:\nh\n\n/sub:\ndeep\ng\n"
    assert "Read-only" in container.exec("sh", "-c", "(echo x > /ro/x) 2>&1; true")
    container.exec("sh", "-c", "echo new > /data/new")
    assert (target / "new").read_text() == (volume.staging / "new").read_text() == "new\n"
    assert all(len(layers(pid, m["target"])) == 1 for m in mounts_of(volume, pid))
    assert f"volume {volume.id} was healed" in node.plugin.text()
    assert healing(volume)["deaths"] == 1 and healing(volume)["staleMounts"] == 0
    container.remove()
    volume.down()
    assert node.is_clean()


def test_containers_that_share_a_volume(node, volume):
    volume.stage()
    containers = [Container(node, {"/data": (volume.publish(f"pod-{i}"), ["ro"] if i % 2 else [])}, runtime=RUNTIMES[i % 2],
                            read_only=i > 1) for i in range(4)]
    pids = {f"container {i}": c.pid for i, c in enumerate(containers)}
    stays_the_same(volume, {"host": "self", **pids})
    for pid in pids.values():
        assert read(pid, "/data/f") == "hello\n"


def test_containers_of_a_pod_that_share_its_processes(node, volume):
    """The sandbox has the pid namespace; one process of a container made a mount namespace of its own, another sits in a
    chroot on the volume."""
    target = volume.up()
    sandbox = Container(node, {})
    first = Container(node, {"/data": (target, [])}, share={"pid": sandbox.pid, "network": sandbox.pid})
    second = Container(node, {"/data": (target / "sub", ["ro"])}, share={"pid": sandbox.pid, "ipc": sandbox.pid}, runtime="crun")
    unshared = Namespace(node, inside=first.pid)
    pids = {"host": "self", "sandbox": sandbox.pid, "first": first.pid, "second": second.pid, "unshared": unshared.pid}
    stays_the_same(volume, pids)
    assert read(first.pid, "/data/f") == read(unshared.pid, "/data/f") == "hello\n"
    assert read(second.pid, "/data/g") == "below\n"
    assert mounts_of(volume, sandbox.pid) == []


MAPPINGS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def open_to_mapped_users(node):
    for directory in (node.base, node.base / "containers"):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)


@pytest.mark.parametrize("end", ENDS)
def test_a_container_with_a_user_namespace(node, volume, end):
    open_to_mapped_users(node)
    target = volume.up()
    (node.sources / volume.id / "owned").write_text("mine\n")
    os.chown(node.sources / volume.id / "owned", 7, 8)
    container = Container(node, {"/data": (target, ["nosuid", "nodev"]), "/sub": (target / "sub", ["ro", "nosuid", "nodev"])},
                          mappings=MAPPINGS)
    pid = container.pid
    place_idmapped(target, "0 100000 65536", "0 100000 65536", pid, "/tmp")
    assert container.exec("stat", "-c", "%u:%g", "/tmp/owned", "/data/owned") == "7:8\n65534:65534\n"
    stays_the_same(volume, {"host": "self", "container": pid}, end)
    assert container.exec("cat", "/data/f", "/sub/g", "/tmp/f") == "hello\nbelow\nhello\n"
    assert container.exec("stat", "-c", "%u:%g", "/tmp/owned", "/data/owned") == "7:8\n65534:65534\n"
    container.exec("sh", "-c", "echo new > /tmp/new")
    st = (node.sources / volume.id / "new").stat()
    assert (st.st_uid, st.st_gid) == (0, 0)


def test_mappings_that_are_not_those_of_a_container(node, volume):
    """Several lines, and different ones for users and groups: as written, not as some namespace's owner has them."""
    target = volume.up()
    (node.sources / volume.id / "owned").write_text("mine\n")
    os.chown(node.sources / volume.id / "owned", 3, 4)
    where = node.base / "mapped"
    where.mkdir()
    place_idmapped(target, "0 1000 2\n3 5000 4\n", "0 2000 4\n4 70000 1\n", "self", where)
    assert owner(where / "owned") == (5000, 70000)
    stays_the_same(volume, {"host": "self"})
    assert owner(where / "owned") == (5000, 70000)


def owner(path):
    st = os.stat(path)
    return st.st_uid, st.st_gid


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_mounted_below_and_on_top_is_kept(node, runtime):
    volume, other = (make_volume(node, attributes=NAMES_STAY) for _ in range(2))
    container = Container(node, {
        "/data": (volume.up(), []),
        "/data/sub": (other.up(), ["ro"]),      # another volume on a directory of this one
        "/data/sub/sub": (volume.target() / "sub", []),  # and this one on a directory of that one
        "/data/one": (node.sources / volume.id / "one", ["noexec"]),  # something that is no volume
        "/data/one/file": (volume.target() / "f", []),
    }, runtime=runtime)
    pid = container.pid

    inside(pid, """
        tmpfs("/data/sub/sub/deep")
        open("/data/sub/sub/deep/mine", "w").write("kept\\n")
        os.mkdir("/top")
        bind("/data", "/top")
        tmpfs("/top")
        open("/top/above", "w").write("above\\n")
    """)
    pids = {"host": "self", "container": pid}
    everything = [(m["target"], m["fstype"], m["root"], m["options"]) for m in mountinfo(pid)]
    for volumes in ([volume], [other], [volume, other]):
        stays_the_same(volumes, pids)
        check_nested(container)
        assert sorted(map(str, everything)) == sorted(
            str((m["target"], m["fstype"], m["root"], m["options"])) for m in mountinfo(pid))
    inside(pid, "umount('/top')")
    assert container.exec("cat", "/top/f") == "hello\n"
    assert len(layers(pid, "/top")) == 1


def check_nested(container):
    assert container.exec("cat", "/data/f", "/data/sub/f", "/data/sub/sub/g", "/data/sub/sub/deep/mine", "/data/one/file",
                          "/top/above") == "hello\nhello\nbelow\nkept\nhello\nabove\n"
