# SPDX-License-Identifier: Apache-2.0
"""Requests that are wrong, and nodes that are not as they should be: the code, the message, and nothing left behind."""

import contextlib
import ctypes
import errno
import os
import pathlib
import resource
import socket
import subprocess
import threading
import time

import grpc
import pytest

import csi_pb2
from harness import BUILD, AccessMode, eventually, mountinfo, refused

Code = grpc.StatusCode


def picture(node):
    """Everything that a call could leave behind."""
    tree = sorted(str(p) for p in node.kubelet_root.rglob("*") if not p.is_socket())
    fds = [f for f in node.plugin.fds() if not f.startswith("socket:")] if node.plugin.running() else []
    return mountinfo(), tree, node.records(), node.workers(), fds


@contextlib.contextmanager
def leaves_nothing(node):
    before = picture(node)
    yield
    end = time.monotonic() + 5
    while (after := picture(node)) != before and time.monotonic() < end:
        time.sleep(0.01)
    for b, a in zip(before, after):
        assert a == b


@pytest.fixture
def volume(node):
    node.make_source("data", {"hello": "world\n"})
    v = node.volume("pv-1", node.sources / "data")
    v.staging.mkdir(parents=True)
    v.target().parent.mkdir(parents=True)
    return v


def block():
    return csi_pb2.VolumeCapability(block=csi_pb2.VolumeCapability.BlockVolume(),
                                    access_mode=AccessMode(mode=AccessMode.SINGLE_NODE_WRITER))


def capability(mode=AccessMode.MULTI_NODE_READER_ONLY, **mount):
    return csi_pb2.VolumeCapability(mount=csi_pb2.VolumeCapability.MountVolume(**mount),
                                    access_mode=AccessMode(mode=mode))


no_access_type = csi_pb2.VolumeCapability(access_mode=AccessMode(mode=AccessMode.SINGLE_NODE_WRITER))
no_access_mode = csi_pb2.VolumeCapability(mount=csi_pb2.VolumeCapability.MountVolume())

COMMON = [
    ("no volume id", {"volume_id": None}, "volume_id"),
    ("an id of 129 bytes", {"volume_id": "x" * 129}, "128"),
    ("an id of 64 KiB", {"volume_id": "x" * 65536}, "128"),
    ("an id with dots", {"volume_id": "../../etc"}, "volume_id"),
    ("an id of dots", {"volume_id": ".."}, "volume_id"),
    ("an absolute id", {"volume_id": "/etc"}, "volume_id"),
    ("an id with a newline", {"volume_id": "a\nb"}, "control character"),
    ("an id with an escape", {"volume_id": "a\x1b[2Jb"}, "control character"),
    ("an id with a NUL", {"volume_id": "pv\0-1"}, "NUL"),
    ("no capability", {"volume_capability": None}, "volume_capability"),
    ("a block capability", {"volume_capability": block()}, "volumeMode: Filesystem"),
    ("no access type", {"volume_capability": no_access_type}, "access type"),
    ("no access mode", {"volume_capability": no_access_mode}, "access_mode"),
    ("an access mode of the future", {"volume_capability": capability(mode=99)}, "access_mode"),
    ("a foreign file system", {"volume_capability": capability(fs_type="ext4")}, "fsType"),
    ("an unknown mount flag", {"volume_capability": capability(mount_flags=["suid"])}, "suid"),
    ("a hidden mount flag", {"volume_capability": capability(mount_flags=["ro,fd=3"])}, "fd=3"),
    ("mount flags of 5 KiB", {"volume_capability": capability(mount_flags=["ro,"] * 2000)}, "4096"),
    ("a mount flag with a NUL", {"volume_capability": capability(mount_flags=["ro\0"])}, "NUL"),
    ("a group that is no number", {"volume_capability": capability(volume_mount_group="wheel")}, "wheel"),
    ("a group that is too large", {"volume_capability": capability(volume_mount_group="4294967295")}, "4294967295"),
    ("a publish context of 5 KiB", {"publish_context": {"a": "x" * 5000}}, "publish_context"),
    ("secrets of 5 KiB", {"secrets": {"a": "S3CRET" * 1000}}, "secrets"),
    ("an unknown attribute", {"volume_context": {"sorce": "/x"}}, "'source'"),
    ("an attribute in lower case", {"volume_context": {"readonly": "true"}}, "'readOnly'"),
    ("a relative source", {"volume_context": {"source": "data"}}, "absolute"),
    ("a source of another kind", {"volume_context": {"source": "s3://bucket"}}, "file:///"),
    ("a source with a host", {"volume_context": {"source": "file://host/data"}}, "file:///"),
    ("a source with dots", {"volume_context": {"source": "/srv/../etc"}}, "'..'"),
    ("a source with hidden dots", {"volume_context": {"source": "file:///srv/%2e%2e/etc"}}, "'..'"),
    ("a source with a hidden NUL", {"volume_context": {"source": "file:///srv/%00"}}, "file:///"),
    ("a source with a NUL", {"volume_context": {"source": "/srv\0/etc"}}, "NUL"),
    ("a source with a newline", {"volume_context": {"source": "/srv\n"}}, "control character"),
    ("a wrong boolean", {"volume_context": {"source": "/x", "readOnly": "yes"}}, "readOnly"),
    ("a wrong duration", {"volume_context": {"source": "/x", "attrTimeout": "1 second"}}, "attrTimeout"),
    ("a wrong mode", {"volume_context": {"source": "/x", "mode": "fast"}}, "mode"),
    ("a wrong consistency", {"volume_context": {"source": "/x", "consistency": "eventual"}}, "consistency"),
    ("attributes of 5 KiB", {"volume_context": {"source": "/" + "x/" * 2500}}, "volume_context"),
    ("a staging path that is relative", {"staging_target_path": "a/b"}, "not absolute"),
    ("a staging path elsewhere", {"staging_target_path": "/etc"}, "--kubelet-root"),
    ("a staging path with dots", {"staging_target_path": "KUBELET/../etc"}, "'..'"),
    ("a staging path that is too long", {"staging_target_path": "KUBELET" + "/a" * 3000}, "staging_target_path"),
    ("a staging path with a newline", {"staging_target_path": "KUBELET/a\nb"}, "control character"),
]

TARGET = [
    ("no target path", {"target_path": None}, "target_path"),
    ("a relative target path", {"target_path": "pods/x"}, "not absolute"),
    ("a target path elsewhere", {"target_path": "/etc/holdfast"}, "--kubelet-root"),
    ("a target path beside", {"target_path": "KUBELET-evil/x"}, "--kubelet-root"),
    ("the kubelet root itself", {"target_path": "KUBELET"}, "--kubelet-root"),
    ("a target path with dots", {"target_path": "KUBELET/pods/../../etc"}, "'..'"),
    ("a target path with a double slash", {"target_path": "KUBELET//pods"}, "empty component"),
    ("a target path that is too long", {"target_path": "KUBELET" + "/a" * 3000}, "target_path"),
    ("a target path with a long name", {"target_path": "KUBELET/" + "a" * 300}, "target_path"),
    ("the staging path as the target", {"target_path": "STAGING"}, "in each other"),
    ("a target path on the volume", {"target_path": "STAGING/sub"}, "in each other"),
    ("a target path around the staging path", {"target_path": "KUBELET/plugins/kubernetes.io"}, "in each other"),
    ("a target path with a NUL", {"target_path": "KUBELET/a\0b"}, "NUL"),
]


def fill(volume, change):
    places = {"KUBELET": str(volume.node.kubelet_root), "STAGING": str(volume.staging)}

    def put(value):
        for word, path in places.items():
            value = value.replace(word, path) if isinstance(value, str) else value
        return value

    return {k: put(v) for k, v in change.items()}


@pytest.mark.parametrize("change, word", [c[1:] for c in COMMON], ids=[c[0] for c in COMMON])
def test_stage_refuses(node, volume, change, word):
    with leaves_nothing(node):
        refused(lambda: volume.stage(**fill(volume, change)), Code.INVALID_ARGUMENT, word)
    assert "S3CRET" not in node.plugin.text()


@pytest.mark.parametrize("change, word", [c[1:] for c in COMMON + TARGET], ids=[c[0] for c in COMMON + TARGET])
def test_publish_refuses(node, volume, change, word):
    volume.stage()
    with leaves_nothing(node):
        refused(lambda: volume.publish(**fill(volume, change)), Code.INVALID_ARGUMENT, word)
    assert "S3CRET" not in node.plugin.text()


ALONE = [c for c in TARGET if c[2] != "in each other"] + COMMON[:8]


@pytest.mark.parametrize("change, word", [c[1:] for c in ALONE], ids=[c[0] for c in ALONE])
def test_unpublish_refuses(node, volume, change, word):
    volume.up()
    with leaves_nothing(node):
        refused(lambda: volume.unpublish(**fill(volume, change)), Code.INVALID_ARGUMENT, word)


@pytest.mark.parametrize("change, word", [c[1:] for c in COMMON[:8] + COMMON[-5:]],
                         ids=[c[0] for c in COMMON[:8] + COMMON[-5:]])
def test_unstage_refuses(node, volume, change, word):
    volume.stage()
    with leaves_nothing(node):
        refused(lambda: volume.unstage(**fill(volume, change)), Code.INVALID_ARGUMENT, word)


def test_stage_without_a_staging_path(node, volume):
    with leaves_nothing(node):
        refused(lambda: volume.stage(staging_target_path=None), Code.INVALID_ARGUMENT, "staging_target_path")
        refused(lambda: volume.unstage(staging_target_path=None), Code.INVALID_ARGUMENT, "staging_target_path")


def test_stats_refuse_what_is_missing(node):
    request = csi_pb2.NodeGetVolumeStatsRequest
    refused(lambda: node.rpc().NodeGetVolumeStats(request(volume_path="/x")), Code.INVALID_ARGUMENT, "volume_id")
    refused(lambda: node.rpc().NodeGetVolumeStats(request(volume_id="x")), Code.INVALID_ARGUMENT, "volume_path")


def test_long_ids_and_paths_work(node):
    node.make_source("data")
    volume = node.volume("team/" + "x" * 123, node.sources / "data")
    volume.staging = node.kubelet_root / ("s" * 250) / ("t" * 250)
    target = node.kubelet_root.joinpath(*["t" * 200] * 10, "mount")
    target.parent.mkdir(parents=True)
    volume.stage()
    volume.publish(target_path=str(target))
    assert target.is_mount()
    volume.unpublish(target_path=str(target))
    volume.unstage()
    node.is_clean()


# sources

@pytest.mark.parametrize("name, code, word", [
    ("missing", Code.NOT_FOUND, "does not exist"),
    ("file", Code.INVALID_ARGUMENT, "not a directory"),
    ("file/below", Code.INVALID_ARGUMENT, "not a directory"),
    ("link", Code.INVALID_ARGUMENT, "symbolic link"),
    ("link/below", Code.INVALID_ARGUMENT, "symbolic link"),
    ("fifo", Code.INVALID_ARGUMENT, "not a directory"),
])
def test_a_source_that_is_no_directory(node, volume, name, code, word):
    (node.sources / "file").write_text("x")
    (node.sources / "link").symlink_to(node.sources / "data")
    (node.sources / "data" / "below").mkdir()
    os.mkfifo(node.sources / "fifo")
    with leaves_nothing(node):
        refused(lambda: volume.stage(volume_context={"source": str(node.sources / name)}), code, "source", word)


def test_a_source_that_is_not_allowed(node, volume):
    with leaves_nothing(node):
        for path in ("/etc", str(node.base), str(node.sources) + "-evil"):
            refused(lambda: volume.stage(volume_context={"source": path}), Code.INVALID_ARGUMENT, "--allow-source", path)


def test_no_source_is_allowed_by_default(bare_node):
    node = bare_node
    node.make_source("data")
    args = [str(a) for a in node.plugin_args()]
    i = args.index("--allow-source")
    node.plugin.args = args[:i] + args[i + 2:]
    node.start()
    volume = node.volume("pv-1", node.sources / "data")
    refused(volume.stage, Code.INVALID_ARGUMENT, "none is allowed", "--allow-source")
    node.is_clean()


def test_no_source_at_all(node, volume):
    with leaves_nothing(node):
        refused(lambda: volume.stage(volume_context={}), Code.INVALID_ARGUMENT, "source", "volumeAttributes")


def test_attributes_that_do_not_go_together(node, volume):
    volume.access = AccessMode.MULTI_NODE_MULTI_WRITER
    with leaves_nothing(node):
        for name, value in (("consistency", "immutable"), ("mode", "upcall-free")):
            attributes = {"source": str(volume.attributes["source"]), name: value}
            refused(lambda: volume.stage(volume_context=attributes), Code.INVALID_ARGUMENT, value, "read-only")


class Swapping:
    """Exchanges a directory and a symbolic link to another place, for as long as it lasts."""

    RENAME_EXCHANGE = 2

    def __init__(self, path, to):
        self.path, self.link = pathlib.Path(path), pathlib.Path(str(path) + ".link")
        self.link.symlink_to(to)
        self.ended = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self._run)

    def _exchange(self):
        """Refused while something is mounted there; what Unpublish has removed is made again."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(-100, os.fsencode(self.path), -100, os.fsencode(self.link), self.RENAME_EXCHANGE) != 0:
            code = ctypes.get_errno()
            assert code in (errno.EBUSY, errno.ENOENT), os.strerror(code)
            with contextlib.suppress(FileExistsError):
                self.path.mkdir()

    def _run(self):
        try:
            while not self.ended.is_set():
                self._exchange()
        except BaseException as e:  # told by the test's thread, which does not wait for us
            self.failure = e

    def persist(self, call):
        """Call until it goes well, which it does as soon as the path is not a link for a moment."""
        def go_on():
            assert self.failure is None, self.failure
            return attempt(call)
        try:
            eventually(go_on, what=f"a moment without a link at {self.path}")
        except AssertionError as e:
            there = [(m["id"], m["target"], m["optional"]) for m in mountinfo() if str(self.path) in m["target"]]
            raise AssertionError(f"{e}; {os.listdir(self.path.parent)}, {there}") from e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        self.thread.join()
        if self.path.is_symlink():
            self.path.unlink()
            self.link.rename(self.path)
        else:
            self.link.unlink()


def one_connection(node):
    """Tests that call a thousand times do so on one channel."""
    stub = node.rpc()
    node.rpc = lambda: stub


def attempt(call):
    """Whether it went well; else it was refused as a bad path, never otherwise."""
    try:
        call()
        return True
    except grpc.RpcError as e:
        assert e.code() in (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.NOT_FOUND), e.details()
        return False


def test_a_source_that_is_swapped_for_a_link_never_leads_out(node, volume):
    one_connection(node)
    secret = node.base / "secret"
    secret.mkdir()
    (secret / "hello").write_text("SECRET")
    with Swapping(node.sources / "data", secret):
        for _ in range(60):
            if attempt(volume.stage):
                assert (volume.staging / "hello").read_text() == "world\n"
            volume.unstage()
    node.is_clean()


# paths of kubelet

@pytest.fixture
def elsewhere(node):
    d = node.base / "elsewhere"
    d.mkdir()
    (d / "precious").write_text("x")
    return d


def test_a_staging_path_that_is_not_a_directory(node, volume, elsewhere):
    volume.staging.rmdir()
    with leaves_nothing(node):
        request = lambda: node.rpc().NodeStageVolume(csi_pb2.NodeStageVolumeRequest(
            volume_id="pv-1", staging_target_path=str(volume.staging), volume_capability=volume.capability(),
            volume_context=volume.attributes))
        refused(request, Code.INVALID_ARGUMENT, "does not exist")
    volume.staging.write_text("a file")
    with leaves_nothing(node):
        refused(request, Code.INVALID_ARGUMENT, "not a directory")
    volume.staging.unlink()
    volume.staging.symlink_to(elsewhere)
    with leaves_nothing(node):
        refused(request, Code.INVALID_ARGUMENT, "symbolic link")
        refused(volume.unstage, Code.INVALID_ARGUMENT, "symbolic link")
    assert (elsewhere / "precious").exists()


def test_a_target_path_that_is_not_a_directory(node, volume, elsewhere):
    volume.stage()
    target = volume.target()
    target.write_text("a file")
    with leaves_nothing(node):
        refused(volume.publish, Code.INVALID_ARGUMENT, "not a directory")
    target.unlink()
    target.symlink_to(elsewhere)
    with leaves_nothing(node):
        refused(volume.publish, Code.INVALID_ARGUMENT, "symbolic link")
        refused(volume.unpublish, Code.INVALID_ARGUMENT, "symbolic link")
    target.unlink()
    target.parent.rmdir()
    target.parent.symlink_to(elsewhere)
    with leaves_nothing(node):
        refused(volume.publish, Code.INVALID_ARGUMENT, "symbolic link")
        refused(volume.unpublish, Code.INVALID_ARGUMENT, "symbolic link")
    assert sorted(p.name for p in elsewhere.iterdir()) == ["precious"]


def test_a_target_whose_parent_is_missing(node, volume):
    volume.stage()
    target = node.kubelet_root / "pods" / "nobody" / "mount"
    with leaves_nothing(node):
        refused(lambda: volume.publish(target_path=str(target)), Code.INVALID_ARGUMENT, "does not exist")
        volume.unpublish(target_path=str(target))


def test_a_path_on_which_something_else_is_mounted(node, volume):
    target = volume.target()
    target.mkdir()
    for path in (volume.staging, target):
        subprocess.run(["mount", "-t", "tmpfs", "foreign", path], check=True)
        with leaves_nothing(node):
            if path == target:
                refused(volume.publish, Code.FAILED_PRECONDITION, "mounted on it")
            else:
                refused(volume.stage, Code.FAILED_PRECONDITION, "mounted on it")
        if path == volume.staging:
            subprocess.run(["umount", path], check=True)
            volume.stage()
    volume.unpublish()
    assert target.is_mount()


def test_a_target_below_another_target_of_the_volume(node, volume):
    target = volume.up()
    volume.target("pod-2").parent.mkdir(parents=True)
    with leaves_nothing(node):
        refused(lambda: volume.publish("pod-2", target_path=str(target / "sub")), Code.INVALID_ARGUMENT, str(target))
        refused(lambda: volume.publish("pod-2", target_path=str(target.parent)), Code.INVALID_ARGUMENT, str(target))


def test_a_target_of_another_volume(node, volume):
    target = volume.up()
    other = node.volume("pv-2", node.sources / "data")
    other.stage()
    other.target().parent.mkdir(parents=True)
    with leaves_nothing(node):
        refused(lambda: other.publish(target_path=str(target)), Code.FAILED_PRECONDITION, "mounted on it")
        other.unpublish(target_path=str(target))
    assert target.is_mount()


@pytest.mark.parametrize("which", ["target", "parent"])
def test_a_target_that_is_swapped_for_a_link_never_leads_out(node, volume, elsewhere, which):
    one_connection(node)
    volume.stage()
    target = volume.target()
    (elsewhere / "mount").mkdir()
    target.mkdir()
    swapped = target if which == "target" else target.parent
    good = 0
    with Swapping(swapped, elsewhere) as swapping:
        for _ in range(150):
            good += attempt(volume.publish)
            assert not elsewhere.is_mount() and not (elsewhere / "mount").is_mount()
            swapping.persist(volume.unpublish)
    assert sorted(p.name for p in elsewhere.iterdir()) == ["mount", "precious"]
    volume.unpublish()
    volume.unstage()
    node.is_clean()


def test_a_staging_path_that_is_swapped_for_a_link_never_leads_out(node, volume, elsewhere):
    one_connection(node)
    with Swapping(volume.staging, elsewhere) as swapping:
        for _ in range(80):
            attempt(volume.stage)
            assert not elsewhere.is_mount()
            swapping.persist(volume.unstage)
    assert sorted(p.name for p in elsewhere.iterdir()) == ["precious"]
    volume.unstage()
    node.is_clean()


def test_unpublish_of_a_swapped_target_deletes_nothing_elsewhere(node, volume, elsewhere):
    volume.access = AccessMode.MULTI_NODE_READER_ONLY
    target, other = volume.up(), volume.publish("pod-2")
    parent, aside = target.parent, target.parent.with_name("aside")
    parent.rename(aside)
    parent.symlink_to(elsewhere)
    (elsewhere / "mount").mkdir()  # an empty directory is what an rmdir would take
    refused(volume.unpublish, Code.INVALID_ARGUMENT, "symbolic link")
    assert (elsewhere / "mount").is_dir()
    assert not (aside / "mount").is_mount()  # it is found where it went
    assert other.is_mount() and volume.staging.is_mount()
    parent.unlink()
    aside.rename(parent)
    volume.unpublish("pod-2")
    volume.down()
    node.is_clean()


def test_unstage_finds_its_mount_where_the_path_was_swapped(node, volume, elsewhere):
    volume.stage()
    parent, aside = volume.staging.parent, volume.staging.parent.with_name("aside")
    parent.rename(aside)
    parent.symlink_to(elsewhere)
    (elsewhere / "globalmount").mkdir()
    volume.unstage()
    assert not (aside / "globalmount").is_mount() and (elsewhere / "globalmount").is_dir()
    node.is_clean()


# a node that is not as it should be

def test_without_a_keeper(node, volume):
    node.keeper.kill()
    with leaves_nothing(node):
        refused(volume.stage, Code.UNAVAILABLE, "keeper")
    (node.run_dir / "keeper.sock").unlink()
    node.start_keeper()
    volume.up()
    volume.down()
    node.is_clean()


def test_started_before_the_keeper(bare_node):
    node = bare_node
    node.start_plugin()
    node.make_source("data")
    volume = node.volume("pv-1", node.sources / "data")
    refused(volume.stage, Code.UNAVAILABLE, "keeper")
    volume.unpublish()
    volume.unstage()
    node.start_keeper()
    volume.up()
    volume.down()
    node.is_clean()


def own_record_directory(node):
    """The records on a tmpfs of their own, so that it can be filled and made read-only."""
    d = node.run_dir / "volumes"
    d.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", d], check=True)
    return d


def test_a_full_run_directory(bare_node):
    node = bare_node
    records = own_record_directory(node)
    node.start()
    node.make_source("data")
    up, other = node.volume("pv-1", node.sources / "data"), node.volume("pv-2", node.sources / "data")
    up.up()
    other.staging.mkdir(parents=True)
    up.target("pod-2").parent.mkdir(parents=True)
    filler = records / ".new.filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as f:
        while True:
            f.write(b"x" * 4096)
    with leaves_nothing(node):
        refused(other.stage, Code.RESOURCE_EXHAUSTED, "No space left")
        refused(lambda: up.publish("pod-2"), Code.RESOURCE_EXHAUSTED, "No space left")
    up.down()  # the way out is never barred
    filler.unlink()
    node.is_clean()


def test_a_readonly_run_directory(bare_node):
    node = bare_node
    records = own_record_directory(node)
    node.start()
    node.make_source("data")
    volume = node.volume("pv-1", node.sources / "data")
    volume.staging.mkdir(parents=True)
    remount = lambda how: subprocess.run(["mount", "-o", f"remount,{how}", records], check=True)
    remount("ro")
    with leaves_nothing(node):
        refused(volume.stage, Code.INTERNAL, "Read-only file system")
    remount("rw")
    volume.up()
    remount("ro")
    volume.unpublish()
    refused(volume.unstage, Code.INTERNAL, "Read-only file system")
    remount("rw")
    volume.unstage()
    node.is_clean()


def test_no_descriptors_left(node, volume):
    volume.stage()
    used = max(int(p.name) for p in pathlib.Path(f"/proc/{node.plugin.pid}/fd").iterdir())
    rpc = node.rpc()
    rpc.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest(), timeout=5)  # connected
    before = resource.prlimit(node.plugin.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(node.plugin.pid, resource.RLIMIT_NOFILE, (4, before[1]))
    try:
        with leaves_nothing(node):
            refused(lambda: rpc.NodePublishVolume(csi_pb2.NodePublishVolumeRequest(
                volume_id="pv-1", staging_target_path=str(volume.staging), target_path=str(volume.target()),
                volume_capability=volume.capability(), volume_context=volume.attributes), timeout=20),
                Code.RESOURCE_EXHAUSTED, "Too many open files")
    finally:
        resource.prlimit(node.plugin.pid, resource.RLIMIT_NOFILE, before)
    assert used > 4
    volume.publish()
    volume.down()
    node.is_clean()


def wrapped(daemon, node, *command):
    """Have a daemon started by another program."""
    script = node.base / f"{daemon.name}-wrapped"
    script.write_text(f"#!/bin/sh\nexec {' '.join(command)} {BUILD / daemon.name} \"$@\"\n")
    script.chmod(0o755)
    daemon.path = str(script)


@pytest.mark.parametrize("name", ["plugin", "keeper"])
def test_without_cap_sys_admin(bare_node, name):
    node = bare_node
    node.make_source("data")
    wrapped(getattr(node, name), node, "setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    node.start()
    volume = node.volume("pv-1", node.sources / "data")
    volume.staging.mkdir(parents=True)
    with leaves_nothing(node):
        refused(volume.stage, Code.FAILED_PRECONDITION, "CAP_SYS_ADMIN")


def test_without_dev_fuse(bare_node):
    node = bare_node
    node.make_source("data")
    wrapped(node.keeper, node, "unshare", "-m", "sh", "-c",
            "'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec \"$0\" \"$@\"'")
    node.start()
    volume = node.volume("pv-1", node.sources / "data")
    volume.staging.mkdir(parents=True)
    with leaves_nothing(node):
        refused(volume.stage, Code.FAILED_PRECONDITION, "/dev/fuse")


def test_a_worker_that_does_not_start(bare_node):
    node = bare_node
    node.make_source("data")
    node.keeper.env["HOLDFAST_WORKER"] = "/bin/false"
    node.start()
    volume = node.volume("pv-1", node.sources / "data")
    volume.staging.mkdir(parents=True)
    before = picture(node)
    with pytest.raises(grpc.RpcError) as e:
        volume.stage()
    assert "pv-1" in e.value.details()
    eventually(lambda: picture(node) == before, what="the undo")


# garbage

def test_garbage_on_the_sockets_is_survived(node, volume):
    target = volume.up()
    for path in (node.plugin_dir / "csi.sock", node.registration):
        for data in (b"\0" * 5000, b"GET / HTTP/1.1\r\n\r\n", os.urandom(20000),
                     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(5000)):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(5)
                s.connect(str(path))
                with contextlib.suppress(OSError):
                    s.sendall(data)
                    s.recv(100)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(5)
        s.connect(str(node.run_dir / "keeper.sock"))
        with contextlib.suppress(OSError):
            s.sendall(os.urandom(300))
            s.recv(2000)
    assert not volume.stats(target).volume_condition.abnormal
    volume.down()
    node.is_clean()


@pytest.mark.parametrize("method", ["NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume",
                                    "NodeGetVolumeStats"])
def test_garbled_messages_are_refused(node, method):
    call = node.channel().unary_unary(f"/csi.v1.Node/{method}", request_serializer=lambda b: b,
                                      response_deserializer=lambda b: b)
    for message in (b"\xff" * 50, b"\x0a\x7fabc", b"\x0a\x02\xff\xfe", os.urandom(1000), b"\x0a\x05pv\x00-1"):
        refused(lambda: call(message, timeout=10), Code.INVALID_ARGUMENT)
