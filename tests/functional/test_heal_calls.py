# SPDX-License-Identifier: Apache-2.0
"""kubelet's calls on volumes that are dead, hung, being healed, or unmounted by somebody else; sources that are gone."""

import os
import signal
import threading
import time

import grpc
import pytest

from container import Container
from harness import eventually, refused
from healing import ENDS, abort, healed, healing, kill_both, layers, look_again, make_volume, reads
from mounting import umount

Code = grpc.StatusCode


@pytest.fixture
def volume(node):
    return make_volume(node)


@pytest.fixture
def lost(node, volume):
    """A volume that stays dead: its source is gone."""
    volume.up()
    source = node.sources / volume.id
    source.rename(source.with_name("gone"))
    abort(volume)
    eventually(lambda: f"volume {volume.id} is not healed" in node.plugin.text(), what="the error line")
    yield volume


def come_back(volume):
    (volume.node.sources / "gone").rename(volume.node.sources / volume.id)


# calls


def test_publish_on_a_dead_volume_heals_it_first(node, volume):
    volume.up()
    for i in range(15):
        abort(volume)
        target = volume.publish(f"pod-{i + 2}")
        assert (target / "f").read_text() == "hello\n"
        volume.unpublish(f"pod-{i + 2}")
    for i in range(15):
        abort(volume)
        assert volume.stage() is not None
        assert (volume.publish() / "f").read_text() == (volume.staging / "f").read_text() == "hello\n"
    volume.down()
    assert node.is_clean()


def test_publish_right_after_both_were_killed(node, volume):
    volume.up()
    for i in range(5):
        kill_both(node)
        node.start()
        target = volume.publish(f"pod-{i + 2}")
        assert (target / "f").read_text() == (volume.target() / "f").read_text() == "hello\n"


def test_stats_of_a_dead_volume_say_so_at_once(lost):
    for path in (lost.staging, lost.target()):
        begun = time.monotonic()
        answer = lost.stats(path)
        assert time.monotonic() - begun < 1.0
        assert answer.volume_condition.abnormal and "connection has ended" in answer.volume_condition.message


def test_stats_of_a_volume_that_is_being_healed(node, volume):
    volume.up()
    for _ in range(20):
        abort(volume)
        begun = time.monotonic()
        volume.stats()
        assert time.monotonic() - begun < 1.0
        eventually(lambda: not volume.stats().volume_condition.abnormal, what="the volume to be well again")


def test_a_dead_volume_is_unpublished_and_unstaged(node, lost):
    container = Container(node, {})
    lost.unpublish()
    assert layers("self", lost.target()) == [] and not lost.target().exists()
    lost.unstage()
    assert node.is_clean()
    container.remove()
    come_back(lost)
    assert (lost.up() / "f").read_text() == "hello\n"


def test_a_hung_volume_is_no_case_for_healing(patient, node, volume):
    """Its stats come soon and are abnormal, it is unpublished and unstaged; it is not healed."""
    target = volume.up()
    worker = volume.worker()
    os.kill(worker, signal.SIGSTOP)
    reader = threading.Thread(target=lambda: reads("self", f"{target}/sub/g"))
    reader.start()
    begun = time.monotonic()
    condition = volume.stats().volume_condition
    assert time.monotonic() - begun < 3.0 and condition.abnormal, condition.message
    volume.unpublish()
    volume.unstage()
    reader.join(20)
    assert not reader.is_alive()
    assert node.is_clean()
    assert "mounted afresh" not in node.plugin.text()


@pytest.mark.parametrize("hang_timeout", ("2s", "0"))
def test_an_aborted_volume_whose_worker_is_stopped_is_healed(bare_node, hang_timeout):
    bare_node.keeper.args += ["--hang-timeout", hang_timeout]
    bare_node.start()
    volume = make_volume(bare_node)
    target = volume.up()
    os.kill(volume.worker(), signal.SIGSTOP)
    healed(volume)
    assert (target / "f").read_text() == "hello\n"


# somebody else unmounts


@pytest.mark.parametrize("gone", ([0], [1, 2], [0, 1, 2]), ids=str)
def test_what_is_unmounted_by_hand_is_mounted_again(node, volume, gone):
    volume.flags = ["noexec", "noatime"]
    targets = [volume.staging, volume.up(), volume.publish("pod-2", readonly=True)]
    before = [layers("self", t)[0]["options"] for t in targets]
    assert "ro" in before[2] and "noexec" in before[1]
    for i in gone:
        umount(targets[i])
    eventually(lambda: all(len(layers("self", t)) == 1 for t in targets), what="them to be mounted again")
    assert [layers("self", t)[0]["options"] for t in targets] == before
    assert [(t / "f").read_text() for t in targets] == ["hello\n"] * 3
    assert "was not mounted at" in node.plugin.text()
    volume.unpublish("pod-2")
    volume.down()
    assert node.is_clean()


def test_a_place_that_can_not_be_mounted_at_is_no_loss_to_others(node, volume):
    targets = [volume.up(), volume.publish("pod-2")]
    node.plugin.kill()
    for path in (volume.staging, *targets):
        umount(path)
    (volume.staging / "rubbish").write_text("somebody's\n")
    node.start_plugin()
    eventually(lambda: all(len(layers("self", t)) == 1 for t in targets), what=lambda: f"the targets: {node.plugin.text()}")
    assert [(t / "f").read_text() for t in targets] == ["hello\n"] * 2
    assert layers("self", volume.staging) == [] and str(volume.staging) in node.plugin.text()
    (volume.staging / "rubbish").unlink()
    look_again(volume)
    assert len(layers("self", volume.staging)) == 1
    volume.unpublish("pod-2")
    volume.down()
    assert node.is_clean()


def test_what_kubelet_unmounts_stays_unmounted(node, volume):
    volume.up()
    volume.unpublish()
    healed(volume)
    assert layers("self", volume.target()) == [] and len(layers("self", volume.staging)) == 1


# sources


@pytest.mark.parametrize("end", ENDS)
def test_a_source_that_is_gone_and_comes_back(node, volume, end):
    container = Container(node, {"/data": (volume.up(), [])})
    pid = container.pid
    other = make_volume(node)
    other_target = other.up()
    source = node.sources / volume.id
    source.rename(source.with_name("gone"))
    before = healing(other)["healings"]
    ENDS[end](volume)
    eventually(lambda: f"volume {volume.id} is not healed" in node.plugin.text(), what="the error line")
    assert str(source) in [line for line in node.plugin.text().splitlines() if "is not healed" in line][0]
    if end == "kill":  # the other one died as well, and is healed in the same go
        eventually(lambda: healing(other)["healings"] > before, what="the other volume's healing")
    assert (other_target / "f").read_text() == "hello\n"
    assert reads(pid, "/data/f") == "ENOTCONN"  # and no empty directory
    refused(lambda: volume.publish("pod-2"), Code.NOT_FOUND, str(source))
    come_back(volume)
    eventually(lambda: reads(pid, "/data/f") == "hello\n", what="the container to read again")
    assert len(layers(pid, "/data")) == 1
    assert volume.publish("pod-2").joinpath("f").read_text() == "hello\n"


def test_a_sub_directory_that_is_gone_stays_an_error(node, volume):
    """Not an empty directory, and not the volume's root; the rest is healed."""
    container = Container(node, {"/data": (volume.up(), []), "/sub": (volume.target() / "sub", []),
                                 "/single": (volume.target() / "one" / "file", [])})
    pid = container.pid
    (node.sources / volume.id / "sub").rename(node.sources / volume.id / "gone")
    healed(volume)
    assert reads(pid, "/data/f") == reads(pid, "/single").replace("single", "hello") == "hello\n"
    assert reads(pid, "/sub/g") == "ENOTCONN"
    assert healing(volume)["staleMounts"] == 1
    eventually(lambda: "stale mount" in node.plugin.text() and "/sub" in node.plugin.text(), what="the error line")
    (node.sources / volume.id / "gone").rename(node.sources / volume.id / "sub")
    eventually(lambda: reads(pid, "/sub/g") == "below\n", timeout=40, what="the sub-directory to be healed")
    assert len(layers(pid, "/sub")) == 1 and layers(pid, "/sub")[0]["root"] == "/sub"
    eventually(lambda: healing(volume)["staleMounts"] == 0, what="the record")
