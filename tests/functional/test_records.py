# SPDX-License-Identifier: Apache-2.0
"""holdfast-csi may be killed at any time: what it knows lies in its records, and what was half done is undone."""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import grpc
import pytest

from harness import AccessMode, eventually, mountinfo, refused

Code = grpc.StatusCode


@pytest.fixture
def volume(node):
    node.make_source("data", {"hello": "world\n"})
    return node.volume("pv-1", node.sources / "data")


def restart(node):
    node.plugin.kill()
    node.start_plugin()


def freeze(node):
    os.kill(node.keeper.pid, signal.SIGSTOP)


def thaw(node):
    os.kill(node.keeper.pid, signal.SIGCONT)


def recorded(node):
    return [n for n in node.records() if n.endswith(".json")]


def record(node):
    (name,) = recorded(node)
    return json.loads((node.run_dir / "volumes" / name).read_text())


def in_background(call):
    def run():
        try:
            call()
        except grpc.RpcError:
            pass
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_nothing_is_lost_when_the_plugin_is_killed(node, volume):
    target = volume.up()
    before = mountinfo()
    restart(node)
    assert mountinfo() == before
    assert (target / "hello").read_text() == "world\n"
    assert not volume.stats().volume_condition.abnormal
    volume.stage()
    volume.publish()
    second = volume.publish("pod-2")
    assert (second / "hello").read_text() == "world\n"
    assert len(mountinfo()) == len(before) + 1
    restart(node)
    volume.unpublish()
    restart(node)
    volume.unpublish("pod-2")
    volume.unstage()
    node.is_clean()


def test_the_parameters_are_remembered(node, volume):
    volume.up()
    restart(node)
    refused(lambda: volume.publish(readonly=True), Code.ALREADY_EXISTS, "readonly")
    volume.access = AccessMode.MULTI_NODE_MULTI_WRITER
    refused(volume.stage, Code.ALREADY_EXISTS, "access mode")


def test_an_inline_volume_outlives_the_plugin(node):
    node.make_source("data", {"hello": "world\n"})
    volume = node.volume("csi-1", node.sources / "data", access=AccessMode.SINGLE_NODE_WRITER,
                         attributes={"csi.storage.k8s.io/ephemeral": "true"})
    target = volume.publish(staging_target_path=None)
    restart(node)
    assert (target / "hello").read_text() == "world\n"
    volume.unpublish()
    node.is_clean()


def test_killed_in_the_middle_of_a_stage(node, volume):
    freeze(node)
    call = in_background(volume.stage)
    eventually(lambda: recorded(node), what="the record")
    assert record(node)["state"] == "staging"
    node.plugin.kill()
    thaw(node)
    call.join()
    node.start_plugin()
    node.is_clean()
    volume.up()
    volume.down()


def test_killed_in_the_middle_of_a_publish(node, volume):
    volume.stage()
    freeze(node)
    call = in_background(volume.publish)
    eventually(lambda: record(node)["targets"], what="the target in the record")
    node.plugin.kill()
    thaw(node)
    call.join()
    volume.target().mkdir(exist_ok=True)  # as far as it may have come
    node.start_plugin()
    assert record(node)["targets"] == []
    assert not volume.target().exists()
    volume.publish()
    volume.down()
    node.is_clean()


def test_killed_in_the_middle_of_an_unstage(node, volume):
    volume.stage()
    freeze(node)
    call = in_background(volume.unstage)
    eventually(lambda: record(node)["state"] == "unstaging", what="the record to say so")
    node.plugin.kill()
    thaw(node)
    call.join()
    node.start_plugin()
    node.is_clean()
    volume.unstage()


def test_killed_in_the_middle_of_an_inline_publish(node):
    node.make_source("data")
    volume = node.volume("csi-1", node.sources / "data", access=AccessMode.SINGLE_NODE_WRITER,
                         attributes={"csi.storage.k8s.io/ephemeral": "true"})
    freeze(node)
    call = in_background(lambda: volume.publish(staging_target_path=None))
    eventually(lambda: recorded(node), what="the record")
    node.plugin.kill()
    thaw(node)
    call.join()
    node.start_plugin()
    node.is_clean()
    assert not volume.target().exists()


def test_leftovers_wait_for_the_keeper(node, volume):
    freeze(node)
    call = in_background(volume.stage)
    eventually(lambda: recorded(node), what="the record")
    node.plugin.kill()
    node.keeper.kill()
    call.join()
    (node.run_dir / "keeper.sock").unlink()
    node.start_plugin()
    assert len(node.records()) == 1
    node.start_keeper()
    volume.unpublish()
    node.is_clean()


def test_the_keepers_volumes_without_a_record_are_ended(node, volume):
    volume.stage()
    restart(node)
    assert len(node.workers()) == 1
    # a record that is lost while nothing of the volume is mounted
    node.plugin.kill()
    (node.run_dir / "volumes" / node.records()[0]).unlink()
    os.system(f"umount -l {volume.staging}")
    node.start_plugin()
    node.is_clean()


def test_a_volume_in_use_survives_the_loss_of_its_record(node, volume):
    target = volume.up()
    node.plugin.kill()
    name = node.records()[0]
    (node.run_dir / "volumes" / name).write_text("{ garbage")
    node.start_plugin()
    assert (target / "hello").read_text() == "world\n"
    assert "pv-1" in node.plugin.text() and "may be in use" in node.plugin.text()
    refused(lambda: volume.publish("pod-2"), Code.FAILED_PRECONDITION, "stage")
    volume.unpublish()
    assert not target.exists()
    volume.unstage()
    assert node.fuse_mounts() == []
    assert node.records() == [f"{name}.broken"]
    volume.unstage()  # by now it is mounted nowhere
    assert eventually(lambda: node.workers() == [], what="workers to go")


def test_an_earlier_record_of_another_release_is_kept(node, volume):
    volume.up()
    node.plugin.kill()
    path = node.run_dir / "volumes" / node.records()[0]
    saved = path.read_text()
    path.write_text(json.dumps({**json.loads(saved), "version": 99}))
    node.start_plugin()
    assert (volume.target() / "hello").read_text() == "world\n"
    node.plugin.kill()
    path.write_text(saved)
    node.start_plugin()
    volume.down()
    node.is_clean()


def test_records_hold_no_secrets_and_are_ours_alone(node, volume):
    volume.attributes["csi.storage.k8s.io/serviceAccount.tokens"] = "T0KEN"
    volume.stage(secrets={"password": "S3CRET"})
    volume.publish(secrets={"password": "S3CRET"})
    d = node.run_dir / "volumes"
    assert d.stat().st_mode & 0o777 == 0o700
    for f in d.iterdir():
        assert f.stat().st_mode & 0o777 == 0o600
        assert "S3CRET" not in f.read_text() and "T0KEN" not in f.read_text()
    assert "S3CRET" not in node.plugin.text() and "T0KEN" not in node.plugin.text()


def test_a_keeper_and_plugin_that_both_died_are_survived(node, volume):
    target = volume.up()
    node.plugin.kill()
    node.keeper.kill()
    (node.run_dir / "keeper.sock").unlink()
    node.start()
    volume.publish()
    assert (target / "hello").read_text() == "world\n"
    volume.down()
    node.is_clean()


def test_a_dead_mount_that_no_record_tells_of_is_unmounted_at_start(node, volume):
    target = volume.up()
    subprocess.run(["mount", "--bind", target, target], check=True)
    node.plugin.kill()
    node.keeper.kill()
    for record in (node.run_dir / "volumes").iterdir():
        record.unlink()
    node.start()
    assert node.fuse_mounts() == []
    assert node.plugin.text().count("nobody serves it: it is unmounted") == 3
    volume.down()
    assert node.is_clean()


@pytest.mark.parametrize("inline", [False, True])
def test_a_target_whose_pod_is_gone_goes_at_start(node, volume, inline):
    if inline:
        volume = node.volume("csi-1", node.sources / "data", access=AccessMode.SINGLE_NODE_WRITER,
                             attributes={"csi.storage.k8s.io/ephemeral": "true"})
        target = volume.publish(staging_target_path=None)
    else:
        target = volume.up()
    node.plugin.kill()
    subprocess.run(["umount", "-l", target], check=True)
    shutil.rmtree(target.parent)
    node.start_plugin()
    assert "its pod's directory is gone" in node.plugin.text()
    if inline:
        assert node.is_clean()
    else:
        assert volume.status()["targets"] == []
        volume.down()
        assert node.is_clean()


def test_killed_at_any_moment(node):
    """Whatever the plugin was doing: after its restart, kubelet's repeated calls lead to where they should."""
    dice = random.Random(7)
    volumes = []
    for i in range(4):
        node.make_source(f"d{i}", {"hello": "world\n"})
        volumes.append(node.volume(f"pv-{i}", node.sources / f"d{i}"))
    for _ in range(25):
        calls = [in_background(lambda v=v: (v.up(), v.down())) for v in volumes]
        time.sleep(dice.uniform(0, 0.06))
        restart(node)
        for c in calls:
            c.join()
        for v in volumes:
            target = v.up()
            assert (target / "hello").read_text() == "world\n"
            assert len([m for m in mountinfo() if m["target"] == str(target)]) == 1
            assert len([m for m in mountinfo() if m["target"] == str(v.staging)]) == 1
            v.down()
        node.is_clean()
