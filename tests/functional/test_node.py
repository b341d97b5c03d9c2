# SPDX-License-Identifier: Apache-2.0
"""The Node service as kubelet calls it: stage, publish, stats, unpublish, unstage."""

import concurrent.futures
import os
import random
import signal
import subprocess
import threading
import time

import grpc
import pytest

import csi_pb2
from harness import AccessMode, eventually, mountinfo, refused

Code = grpc.StatusCode
Unit = csi_pb2.VolumeUsage
Rpc = csi_pb2.NodeServiceCapability.RPC


@pytest.fixture
def volume(node):
    node.make_source("data", {"hello": "world\n"})
    return node.volume("pv-1", node.sources / "data")


def at(node, path):
    """The mounts at a path, bottom first."""
    return [m for m in mountinfo() if m["target"] == str(path)]


def files(daemon):
    """Its descriptors but for connections: those are the test's own channels."""
    return [f for f in daemon.fds() if not f.startswith("socket:")]


def inline(node, name="csi-0123", source=None, **attributes):
    v = node.volume(name, source or node.sources / "data", access=AccessMode.SINGLE_NODE_WRITER,
                    attributes={"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.uid": "u-1",
                                **attributes})
    return v


# the whole way

def test_stage_publish_unpublish_unstage_leave_nothing(node, volume):
    fds = files(node.plugin)
    volume.stage()
    assert [m["fstype"] for m in at(node, volume.staging)] == ["fuse.holdfast"]
    target = volume.publish()
    assert [m["source"] for m in at(node, target)] == ["holdfast:pv-1"]
    assert len(node.records()) == 1
    volume.unpublish()
    assert not target.exists()
    volume.unstage()
    assert volume.staging.is_dir()
    node.is_clean()
    assert files(node.plugin) == fds


def test_every_call_may_be_repeated(node, volume):
    for _ in range(3):
        volume.stage()
    for _ in range(3):
        target = volume.publish()
    assert len(at(node, volume.staging)) == 1 and len(at(node, target)) == 1
    for _ in range(3):
        volume.unpublish()
    for _ in range(3):
        volume.unstage()
    node.is_clean()


def test_several_pods_share_one_worker(node, volume):
    volume.stage()
    targets = [volume.publish(f"pod-{i}") for i in range(5)]
    assert len({m["dev"] for t in targets for m in at(node, t)}) == 1
    assert len(node.workers()) == 1
    for i in range(5):
        volume.unpublish(f"pod-{i}")
    volume.unstage()
    node.is_clean()


def test_many_volumes_at_once(node):
    volumes = []
    for i in range(12):
        node.make_source(f"d{i}")
        volumes.append(node.volume(f"pv-{i}", node.sources / f"d{i}"))
    failures = []

    def go(v):
        try:
            v.up()
            v.down()
        except Exception as e:  # noqa: BLE001
            failures.append(e)

    threads = [threading.Thread(target=go, args=(v,)) for v in volumes]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert failures == []
    node.is_clean()


def test_calls_in_any_order_from_everywhere(node):
    """Calls of four clients at random, some given up early: each is answered as the specification says, and the usual
    calls then take everything away."""
    volumes = []
    for i in range(3):
        node.make_source(f"d{i}", {"hello": "world\n"})
        volumes.append(node.volume(f"pv-{i}", node.sources / f"d{i}"))
        volumes[i].staging.mkdir(parents=True)
        for pod in ("pod-1", "pod-2"):
            volumes[i].target(pod).parent.mkdir(parents=True)
    expected = {Code.ABORTED, Code.FAILED_PRECONDITION, Code.DEADLINE_EXCEEDED, Code.NOT_FOUND}
    surprises = []

    def client(seed):
        dice, stub = random.Random(seed), node.rpc()
        for _ in range(150):
            v, pod = dice.choice(volumes), dice.choice(("pod-1", "pod-2"))
            call = dice.choice((stage_call, publish_call, publish_call, unpublish_call, unstage_call, stats_call))
            try:
                call(stub, v, pod, timeout=dice.choice((30, 30, 0.002, 0.005)))
            except grpc.RpcError as e:
                if e.code() not in expected:
                    surprises.append(f"{call.__name__}: {e.code()}: {e.details()}")

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert surprises == []
    for v in volumes:
        for pod in ("pod-1", "pod-2"):
            eventually(lambda: let_in(lambda: v.unpublish(pod)), what="unpublish to be let in")
            assert not v.target(pod).exists()
        eventually(lambda: let_in(v.unstage), what="unstage to be let in")
    node.is_clean()


def let_in(call):
    try:
        call()
        return True
    except grpc.RpcError as e:
        assert e.code() == Code.ABORTED, e.details()
        return False


def stage_call(stub, v, pod, timeout):
    stub.NodeStageVolume(csi_pb2.NodeStageVolumeRequest(
        volume_id=v.id, staging_target_path=str(v.staging), volume_capability=v.capability(),
        volume_context=v.attributes), timeout=timeout)


def publish_call(stub, v, pod, timeout):
    stub.NodePublishVolume(csi_pb2.NodePublishVolumeRequest(
        volume_id=v.id, staging_target_path=str(v.staging), target_path=str(v.target(pod)),
        volume_capability=v.capability(), volume_context=v.attributes), timeout=timeout)


def unpublish_call(stub, v, pod, timeout):
    stub.NodeUnpublishVolume(csi_pb2.NodeUnpublishVolumeRequest(volume_id=v.id, target_path=str(v.target(pod))),
                             timeout=timeout)


def unstage_call(stub, v, pod, timeout):
    stub.NodeUnstageVolume(csi_pb2.NodeUnstageVolumeRequest(volume_id=v.id, staging_target_path=str(v.staging)),
                           timeout=timeout)


def stats_call(stub, v, pod, timeout):
    stub.NodeGetVolumeStats(csi_pb2.NodeGetVolumeStatsRequest(volume_id=v.id, volume_path=str(v.target(pod))),
                            timeout=timeout)


def test_mounts_are_nosuid_and_nodev_and_take_the_mount_flags(node, volume):
    volume.flags = ["noexec,noatime"]
    volume.access = AccessMode.MULTI_NODE_MULTI_WRITER
    volume.stage()
    for path in (volume.staging, volume.publish()):
        options = at(node, path)[0]["options"]
        assert {"rw", "nosuid", "nodev", "noexec", "noatime"} <= set(options)


def test_readonly_only_ever_narrows(node, volume):
    volume.access = AccessMode.MULTI_NODE_MULTI_WRITER
    volume.stage()
    assert "ro" in at(node, volume.publish("reader", readonly=True))[0]["options"]
    assert "rw" in at(node, volume.publish("writer"))[0]["options"]
    assert "rw" in at(node, volume.staging)[0]["options"]


@pytest.mark.parametrize("how", ["attribute", "access mode", "mount flag", "attribute against access mode"])
def test_a_readonly_volume_is_readonly_at_every_target(node, volume, how):
    volume.access = AccessMode.MULTI_NODE_MULTI_WRITER
    if how == "attribute":
        volume.attributes["readOnly"] = "true"
    elif how == "mount flag":
        volume.flags = ["ro"]
    else:
        volume.access = AccessMode.MULTI_NODE_READER_ONLY
        if how != "access mode":
            volume.attributes["readOnly"] = "false"
    target = volume.up()
    for path in (target, volume.staging):
        assert "ro" in at(node, path)[0]["options"]
        assert "ro" in at(node, path)[0]["super"]


def test_kubelets_own_attributes_are_accepted_and_not_compared(node, volume):
    volume.attributes["csi.storage.k8s.io/serviceAccount.tokens"] = '{"a":{"token":"T0KEN-1"}}'
    volume.up()
    volume.attributes["csi.storage.k8s.io/serviceAccount.tokens"] = '{"a":{"token":"T0KEN-2"}}' + "x" * 9000
    volume.attributes["csi.storage.k8s.io/pod.name"] = "other"
    volume.publish()
    volume.down()
    node.is_clean()
    assert "T0KEN" not in node.plugin.text()


def test_sources_may_be_file_uris(node):
    node.make_source("with space", {})
    volume = node.volume("pv-1", f"file://{node.sources}/with%20space/")
    volume.up()
    volume.down()


def test_a_mount_below_the_source_is_served_even_if_it_is_unmounted_later(node, volume):
    inner = node.sources / "data" / "inner"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", inner], check=True)
    volume.up()
    subprocess.run(["umount", inner], check=True)
    volume.down()
    node.is_clean()


# the same volume again, otherwise

@pytest.mark.parametrize("change, word", [
    ({"attributes": {"mode": "worker"}}, "mode"),
    ({"attributes": {"attrTimeout": "7s"}}, "attrTimeout"),
    ({"attributes": {"readOnly": "true"}}, "readOnly"),
    ({"attributes": {"memoryLimit": "64Mi"}}, "memoryLimit is 'none', this call says '64Mi'"),
    ({"access": AccessMode.MULTI_NODE_MULTI_WRITER}, "access mode"),
    ({"flags": ["noexec"]}, "mount flags"),
    ({"group": "77"}, "volume_mount_group"),
])
def test_staged_again_with_other_parameters(node, volume, change, word):
    volume.stage()
    before = mountinfo()
    volume.attributes.update(change.pop("attributes", {}))
    for name, value in change.items():
        setattr(volume, name, value)
    message = refused(volume.stage, Code.ALREADY_EXISTS, "pv-1", word)
    assert "this call says" in message
    assert mountinfo() == before


def test_staged_again_from_another_source_or_elsewhere(node, volume):
    volume.stage()
    other = node.make_source("other")
    refused(lambda: volume.stage(volume_context={"source": str(other)}), Code.ALREADY_EXISTS, "source", str(other))
    elsewhere = volume.staging.parent / "elsewhere"
    elsewhere.mkdir()
    refused(lambda: volume.stage(staging_target_path=str(elsewhere)), Code.ALREADY_EXISTS, str(volume.staging))


def test_published_again_with_other_parameters(node, volume):
    volume.up()
    before = mountinfo()
    refused(lambda: volume.publish(readonly=True), Code.ALREADY_EXISTS, "readonly")
    volume.flags = ["noexec"]
    refused(volume.publish, Code.ALREADY_EXISTS, "mount flags")
    volume.flags = []
    other = node.make_source("other")
    refused(lambda: volume.publish("pod-2", volume_context={"source": str(other)}), Code.ALREADY_EXISTS, "source")
    assert mountinfo() == before
    assert not volume.target("pod-2").exists()


@pytest.mark.parametrize("access, second", [
    (AccessMode.SINGLE_NODE_SINGLE_WRITER, Code.FAILED_PRECONDITION),
    (AccessMode.SINGLE_NODE_WRITER, Code.FAILED_PRECONDITION),
    (AccessMode.SINGLE_NODE_READER_ONLY, Code.FAILED_PRECONDITION),
    (AccessMode.SINGLE_NODE_MULTI_WRITER, None),
    (AccessMode.MULTI_NODE_READER_ONLY, None),
    (AccessMode.MULTI_NODE_SINGLE_WRITER, None),
    (AccessMode.MULTI_NODE_MULTI_WRITER, None),
])
def test_the_access_mode_says_how_many_targets_there_may_be(node, volume, access, second):
    volume.access = access
    first = volume.up()
    volume.publish()
    if second:
        refused(lambda: volume.publish("pod-2"), second, str(first))
        assert not volume.target("pod-2").exists()
        volume.unpublish()
    volume.publish("pod-2")
    volume.unpublish("pod-2")
    volume.unpublish()
    volume.unstage()
    node.is_clean()


def test_published_for_another_use_than_staged(node, volume):
    volume.stage()
    volume.access = AccessMode.MULTI_NODE_MULTI_WRITER
    refused(volume.publish, Code.FAILED_PRECONDITION, "access mode", "MULTI_NODE_READER_ONLY")
    assert not volume.target().exists()


def test_a_group_is_shown_and_another_one_is_refused(node, volume):
    volume.group = "4242"
    target = volume.up()
    assert os.stat(target / "hello").st_gid == 4242
    volume.group = "4243"
    refused(lambda: volume.publish("pod-2"), Code.FAILED_PRECONDITION, "4243", "fsGroup")
    volume.group = ""
    volume.publish("pod-2")


# order

def test_publish_needs_a_stage(node, volume):
    refused(volume.publish, Code.FAILED_PRECONDITION, "pv-1", "stage")
    assert not volume.target().exists()
    volume.stage()
    refused(lambda: volume.publish(staging_target_path=None), Code.FAILED_PRECONDITION, "staging_target_path")
    refused(lambda: volume.publish(staging_target_path=str(volume.staging.parent)), Code.FAILED_PRECONDITION,
            "not staged at")
    assert not volume.target().exists()


def test_unstage_waits_for_the_last_unpublish(node, volume):
    target = volume.up()
    refused(volume.unstage, Code.FAILED_PRECONDITION, str(target))
    assert len(at(node, target)) == 1
    volume.down()
    node.is_clean()


def test_a_target_that_vanished_does_not_hold_up_unstage(node, volume):
    target = volume.up()
    subprocess.run(["umount", "-l", target], check=True)
    target.rmdir()
    volume.unstage()
    node.is_clean()


def test_a_target_that_vanished_does_not_hold_up_the_next_one(node, volume):
    volume.access = AccessMode.SINGLE_NODE_SINGLE_WRITER
    target = volume.up()
    subprocess.run(["umount", "-l", target], check=True)
    target.rmdir()
    volume.publish("pod-2")
    volume.unpublish()
    volume.unpublish("pod-2")
    volume.unstage()
    node.is_clean()


def test_unpublish_and_unstage_of_what_is_not_there_succeed(node, volume):
    volume.unpublish()
    volume.unstage()
    volume.stage()
    volume.unpublish("never")
    volume.unstage(staging_target_path=str(volume.staging.parent / "elsewhere"))
    assert len(at(node, volume.staging)) == 1


def test_unpublish_removes_only_an_empty_directory(node, volume):
    target = volume.up()
    subprocess.run(["umount", "-l", target], check=True)
    (target / "written").write_text("while the mount was away")
    refused(volume.unpublish, Code.FAILED_PRECONDITION, str(target), "move them away")
    assert (target / "written").read_text() == "while the mount was away"
    (target / "written").unlink()
    volume.down()
    node.is_clean()


def test_publish_does_not_hide_files(node, volume):
    volume.stage()
    target = volume.target()
    target.mkdir(parents=True)
    (target / "precious").write_text("x")
    refused(volume.publish, Code.FAILED_PRECONDITION, str(target), "not empty")
    assert (target / "precious").read_text() == "x"
    (target / "precious").unlink()
    volume.publish()  # an empty directory may be there


def test_many_pods_of_one_volume_go_at_once(node, volume):
    """A refusal would cost each of them kubelet's next pause."""
    volume.stage()
    pods = [f"pod-{i}" for i in range(16)]
    for call in (volume.publish, volume.unpublish):
        with concurrent.futures.ThreadPoolExecutor(len(pods)) as pool:
            list(pool.map(call, pods))
    volume.unstage()
    node.is_clean()


def test_two_calls_at_once_on_one_volume(node, volume):
    volume.stage()
    os.kill(node.keeper.pid, signal.SIGSTOP)
    try:
        first = threading.Thread(target=volume.publish)
        first.start()
        record = node.run_dir / "volumes" / node.records()[0]
        eventually(lambda: str(volume.target()) in record.read_text(), what="the first call to be under way")
        refused(lambda: volume.unpublish("pod-9"), Code.ABORTED, "pv-1", "under way")
        refused(volume.unstage, Code.ABORTED, "pv-1")
        refused(lambda: volume.publish("pod-2"), Code.ABORTED)
    finally:
        os.kill(node.keeper.pid, signal.SIGCONT)
    first.join()
    volume.publish()
    volume.down()
    node.is_clean()


def test_a_publish_that_kubelet_gave_up_leaves_no_mount(node, volume):
    volume.stage()
    os.kill(node.keeper.pid, signal.SIGSTOP)
    try:
        refused(lambda: volume.publish(timeout=0.5), Code.DEADLINE_EXCEEDED)
    finally:
        os.kill(node.keeper.pid, signal.SIGCONT)
    eventually(lambda: let_in(volume.unpublish), what="unpublish to be let in")
    assert at(node, volume.target()) == []
    assert not volume.target().exists()
    time.sleep(0.3)
    assert at(node, volume.target()) == []
    volume.unstage()
    node.is_clean()


def test_a_stage_that_kubelet_gave_up_leaves_nothing(node, volume):
    os.kill(node.keeper.pid, signal.SIGSTOP)
    try:
        refused(lambda: volume.stage(timeout=0.5), Code.DEADLINE_EXCEEDED)
    finally:
        os.kill(node.keeper.pid, signal.SIGCONT)
    eventually(lambda: node.fuse_mounts() == [] and node.records() == [] and node.workers() == [], what="the undo")
    volume.up()
    volume.down()


# inline volumes

def test_an_inline_volume_needs_publish_alone(node):
    node.make_source("data", {"hello": "world\n"})
    volume = inline(node)
    target = volume.publish(staging_target_path=None)
    assert len(at(node, target)) == 1 and len(node.fuse_mounts()) == 1
    volume.publish(staging_target_path=None)
    assert len(at(node, target)) == 1
    refused(lambda: volume.publish("pod-2", staging_target_path=None), Code.FAILED_PRECONDITION, "one target")
    volume.unpublish()
    assert not target.exists()
    node.is_clean()
    volume.unpublish()


def test_an_inline_volume_with_other_attributes(node):
    node.make_source("data")
    volume = inline(node)
    volume.publish(staging_target_path=None)
    volume.attributes["mode"] = "worker"
    refused(lambda: volume.publish(staging_target_path=None), Code.ALREADY_EXISTS, "mode")
    volume.unpublish()
    node.is_clean()


def test_an_inline_volume_may_be_published_readonly(node):
    node.make_source("data")
    volume = inline(node, consistency="immutable")
    target = volume.publish(staging_target_path=None, readonly=True)
    assert "ro" in at(node, target)[0]["super"]
    volume.unpublish()
    node.is_clean()


def test_an_inline_volume_chooses_only_among_allowed_sources(node):
    volume = inline(node, source="/etc")
    refused(lambda: volume.publish(staging_target_path=None), Code.INVALID_ARGUMENT, "/etc", "--allow-source")
    assert not volume.target().exists()
    node.is_clean()


def test_an_inline_volume_without_a_source(node):
    volume = inline(node)
    del volume.attributes["source"]
    refused(lambda: volume.publish(staging_target_path=None), Code.INVALID_ARGUMENT, "volumeAttributes of the pod's inline volume")
    node.is_clean()


def test_an_inline_volume_is_not_staged(node):
    node.make_source("data")
    refused(inline(node).stage, Code.INVALID_ARGUMENT, "inline")
    node.is_clean()


# stats and facts

def test_stats_tell_bytes_inodes_and_condition(node, volume):
    target = volume.up()
    for path in (target, volume.staging):
        answer = volume.stats(path)
        usage = {u.unit: u for u in answer.usage}
        assert set(usage) == {Unit.BYTES, Unit.INODES}
        for u in usage.values():
            assert u.total >= u.used >= 0 and u.available >= 0 and u.total > 0
        assert not answer.volume_condition.abnormal
        assert answer.volume_condition.message == "serving"


def test_stats_of_what_is_not_there(node, volume):
    refused(volume.stats, Code.NOT_FOUND, "pv-1")
    told = [line for line in node.plugin.text().splitlines() if "NodeGetVolumeStats: NOT_FOUND" in line]
    assert told and all("level=info" in line for line in told)  # it is no fault: kubelet asks while a pod ends
    volume.stage()
    refused(volume.stats, Code.NOT_FOUND, str(volume.target()))
    refused(lambda: volume.stats("some/path"), Code.NOT_FOUND)
    refused(lambda: volume.stats("/etc"), Code.NOT_FOUND)


def test_stats_of_a_restarted_worker(node, volume):
    volume.up()
    volume.kill_worker()
    eventually(lambda: "restarted 1 times" in volume.stats().volume_condition.message, what="the restart to show")
    assert not volume.stats().volume_condition.abnormal


def test_stats_of_a_hung_volume_answer_at_once_and_start_one_child(patient, node, volume):
    target = volume.up()
    pid = volume.worker()
    os.kill(pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        answer = volume.stats()
        assert time.monotonic() - start < 5
        assert answer.volume_condition.abnormal and "does not answer" in answer.volume_condition.message
        assert len(answer.usage) == 0
        children = lambda: _children(node.plugin.pid)
        assert len(children()) == 1
        for _ in range(3):
            assert volume.stats().volume_condition.abnormal
        assert len(children()) == 1
        volume.unpublish()  # nothing of this waits for the hung mount
        assert not target.exists()
    finally:
        os.kill(pid, signal.SIGCONT)
    volume.publish()
    eventually(lambda: not volume.stats().volume_condition.abnormal, what="the volume to answer again")
    assert eventually(lambda: children() == [], what="the stuck child to be reaped")


def _children(pid):
    return [c for t in os.listdir(f"/proc/{pid}/task")
            for c in open(f"/proc/{pid}/task/{t}/children").read().split()]


def test_a_hung_volume_is_taken_away(patient, node, volume):
    target = volume.up()
    os.kill(volume.worker(), signal.SIGSTOP)
    stuck = subprocess.Popen(["stat", "-f", target], stdout=subprocess.DEVNULL)
    volume.down()
    node.is_clean()
    stuck.wait(20)


def test_stats_when_the_mount_vanished(node, volume):
    target = volume.up()
    subprocess.run(["umount", "-l", target], check=True)
    answer = volume.stats()
    assert answer.volume_condition.abnormal and str(target) in answer.volume_condition.message
    target.rmdir()
    refused(volume.stats, Code.NOT_FOUND, str(target))
    volume.publish()
    assert not volume.stats().volume_condition.abnormal


def test_expand_is_not_served(node, volume):
    volume.up()
    refused(lambda: node.rpc().NodeExpandVolume(csi_pb2.NodeExpandVolumeRequest(
        volume_id="pv-1", volume_path=str(volume.target()))), Code.UNIMPLEMENTED)


def test_capabilities(node):
    answer = node.rpc().NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest(), timeout=5)
    assert [c.rpc.type for c in answer.capabilities] == [
        Rpc.STAGE_UNSTAGE_VOLUME, Rpc.GET_VOLUME_STATS, Rpc.VOLUME_CONDITION, Rpc.SINGLE_NODE_MULTI_WRITER,
        Rpc.VOLUME_MOUNT_GROUP]


def test_node_info(node):
    answer = node.rpc().NodeGetInfo(csi_pb2.NodeGetInfoRequest(), timeout=5)
    assert answer.node_id == "node-1"
    assert answer.max_volumes_per_node == 0
    assert dict(answer.accessible_topology.segments) == {"topology.holdfast.dev/node": "node-1"}


# what is lost comes back

def test_a_vanished_staging_mount_comes_back_with_the_next_stage(node, volume):
    target = volume.up()
    subprocess.run(["umount", "-l", volume.staging], check=True)
    volume.stage()
    assert [m["dev"] for m in at(node, volume.staging)] == [m["dev"] for m in at(node, target)]
    volume.down()
    node.is_clean()


def test_a_vanished_target_comes_back_with_the_next_publish(node, volume):
    target = volume.up()
    subprocess.run(["umount", "-l", target], check=True)
    volume.publish()
    assert len(at(node, target)) == 1
    subprocess.run(["umount", "-l", target], check=True)
    target.rmdir()
    volume.publish()
    assert len(at(node, target)) == 1
    volume.down()
    node.is_clean()


@pytest.mark.parametrize("again", ["stage", "publish"])
def test_a_dead_connection_is_replaced(node, volume, again):
    target = volume.up()
    node.abort_connections()
    if again == "stage":
        stage_call(node.rpc(), volume, None, timeout=30)  # volume.stage() would look at the dead mount
    volume.publish()
    assert len(at(node, target)) == 1 and len(at(node, volume.staging)) == 1
    assert at(node, target)[0]["dev"] == at(node, volume.staging)[0]["dev"]
    assert (target / "hello").read_text() == "world\n"
    assert not volume.stats().volume_condition.abnormal
    volume.down()
    node.is_clean()


def test_a_dead_volume_is_taken_away(node, volume):
    volume.up()
    node.abort_connections()
    volume.down()
    node.is_clean()


def test_publish_again_works_without_a_keeper_where_the_mount_is_there(node, volume):
    volume.up()
    node.keeper.kill()
    volume.publish()
    assert volume.stats().volume_condition.abnormal
    refused(lambda: volume.publish("pod-2"), Code.UNAVAILABLE, "keeper")
    assert not volume.target("pod-2").exists()
    volume.down()
    assert node.fuse_mounts() == [] and node.records() == []


def test_another_mount_on_top_of_a_target_is_not_touched(node, volume):
    target = volume.up()
    subprocess.run(["mount", "-t", "tmpfs", "foreign", target], check=True)
    refused(volume.unpublish, Code.FAILED_PRECONDITION, str(target), "mounted on it")
    assert [m["fstype"] for m in at(node, target)] == ["fuse.holdfast", "tmpfs"]
    subprocess.run(["umount", target], check=True)
    volume.down()
    node.is_clean()


def test_layers_of_the_volume_are_all_unmounted(node, volume):
    target = volume.up()
    subprocess.run(["mount", "--bind", volume.staging, target], check=True, timeout=10)
    assert len(at(node, target)) == 2
    volume.down()
    node.is_clean()
