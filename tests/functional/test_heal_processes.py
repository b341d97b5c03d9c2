# SPDX-License-Identifier: Apache-2.0
"""Healing by processes that die themselves, fail or hang: the volume is healed later, and no path stays empty."""

import os
import pathlib
import random
import shutil
import time

import pytest

from container import Container
from harness import BUILD, eventually
from healing import (NAMES_STAY, Namespace, Picture, abort, healing, inside, kill_both, layers, make_volume, mounts_of, reads,
                     record)

STUB = pathlib.Path(__file__).resolve().parent / "stub_nsmount.py"


@pytest.fixture
def volume(node):
    return make_volume(node)


def is_readable(volume, pid, path):
    """As it should be: readable, one layer. What was there meanwhile was never an empty directory."""
    def reads_again():
        said = reads(pid, f"{path}/f")
        assert said in ("hello\n", "ENOTCONN", "ECONNABORTED"), f"{pid}: {said}: {volume.node.plugin.text()[-3000:]}"
        return said == "hello\n"

    eventually(reads_again, timeout=40, what=lambda: f"{pid} to read: {volume.node.plugin.text()[-3000:]}")
    assert len(layers(pid, path)) == 1


def is_served(volume, pids, path):
    for pid in pids:
        is_readable(volume, pid, path)
    eventually(lambda: healing(volume)["staleMounts"] == 0, what="the record")


# keeper and plugin


@pytest.mark.parametrize("order", ("keeper first", "plugin first", "plugin, and its death once more"))
def test_both_killed_and_started_in_any_order(node, volume, order):
    target = volume.up()
    container = Container(node, {"/data": (target, ["ro"]), "/sub": (target / "sub", [])})
    pids = {"host": "self", "container": container.pid}
    before = Picture([volume], pids)
    for i in range(3):
        kill_both(node)
        assert reads(container.pid, "/data/f") in ("ENOTCONN", "ECONNABORTED")
        if order != "keeper first":
            node.start_plugin()
            assert volume.stats().volume_condition.abnormal
        if order == "plugin, and its death once more":
            node.plugin.kill()
            node.start_plugin()
        node.start_keeper()
        if order == "keeper first":
            node.start_plugin()
        eventually(lambda: healing(volume)["healings"] == i + 1, what="healing")
        assert Picture([volume], pids) == before
    assert container.exec("cat", "/data/f", "/sub/g") == "hello\nbelow\n"
    assert healing(volume)["deaths"] == 3
    container.remove()
    volume.down()
    assert node.is_clean()


def killed_during_healings(volume, pids, seed, daemon, start):
    """Twelve times, each at another moment; comes back when the volume is served again."""
    dice = random.Random(seed)
    for _ in range(12):
        abort(volume)
        time.sleep(dice.uniform(0, 0.04))
        daemon.kill()
        start()
        is_served(volume, pids, str(volume.target()))
        yield


def test_the_plugin_is_killed_during_a_healing(node, volume):
    volume.up()
    namespaces = [Namespace(node, "--propagation", "private") for _ in range(20)]
    pids = ["self"] + [n.pid for n in namespaces]
    for _ in killed_during_healings(volume, pids, 7, node.plugin, node.start_plugin):
        eventually(lambda: {m["dev"] for pid in pids for m in mounts_of(volume, pid)} == {f"0:{os.minor(record(volume)['dev'])}"},
                   what="the record to know its connection")
    volume.down()
    for n in namespaces:
        n.remove()
    assert node.is_clean()


def test_the_keeper_is_killed_during_a_healing(node, volume):
    volume.up()
    pids = ["self"] + [Namespace(node, "--propagation", "private").pid for _ in range(10)]
    for _ in killed_during_healings(volume, pids, 8, node.keeper, node.start_keeper):
        pass
    volume.down()
    assert node.is_clean()


# the helper


class Stubbed:
    def __init__(self, node):
        self.directory = node.base / "bin"
        self.directory.mkdir()
        for name in ("holdfast-csi", "holdfast-statfs"):
            shutil.copy(BUILD / name, self.directory)
        shutil.copy(BUILD / "holdfast-nsmount", self.directory / "real-nsmount")
        shutil.copy(STUB, self.directory / "holdfast-nsmount")
        shutil.copy(STUB.with_name("seccomp_exec.py"), self.directory)
        self.behave("real")
        node.plugin.path = str(self.directory / "holdfast-csi")

    def behave(self, how):
        new = self.directory / "new"
        new.write_text(how)
        new.rename(self.directory / "behaviour")


@pytest.fixture
def stub(bare_node):
    """holdfast-nsmount is a stub that behaves as it is told."""
    stub = Stubbed(bare_node)
    bare_node.start()
    return stub


@pytest.fixture
def scene(stub, bare_node):
    """A volume, and namespaces that it is mounted in."""
    volume = make_volume(bare_node, attributes=NAMES_STAY)
    target = volume.up()
    namespaces = [Namespace(bare_node, "--propagation", "private") for _ in range(4)]
    container = Container(bare_node, {str(target): (target, ["ro"])})
    return volume, ["self", container.pid] + [n.pid for n in namespaces]


@pytest.mark.parametrize("how", ("fail", "garbage", "short", "foreign", "lie"))
def test_a_helper_that_fails(stub, scene, how):
    volume, pids = scene
    before = Picture([volume], dict(enumerate(pids)))
    stub.behave(how)
    abort(volume)
    eventually(lambda: f"volume {volume.id} is not healed" in volume.node.plugin.text(), what="the error line")
    stub.behave("real")
    is_served(volume, pids, str(volume.target()))
    assert Picture([volume], dict(enumerate(pids))) == before
    assert len(layers("self", volume.staging)) == 1


@pytest.mark.parametrize("n", (2, 3, 5, 7))
def test_a_helper_that_is_killed_in_the_middle(stub, scene, n):
    volume, pids = scene
    before = Picture([volume], dict(enumerate(pids)))
    for _ in range(4):
        stub.behave(f"once killed {n}")
        abort(volume)
        is_served(volume, pids, str(volume.target()))
        eventually(lambda: Picture([volume], dict(enumerate(pids))) == before, what=f"{before}")


def test_a_helper_that_dies_with_both_mounts_there(stub, scene):
    """The new one beneath the old one: what is mounted below that comes along all the same."""
    volume, pids = scene
    sub = volume.target() / "sub"
    inside(pids[1], "tmpfs(args[0]); open(args[0] + '/mine', 'w').write('kept')", sub)
    before = Picture([volume], dict(enumerate(pids)))
    for i in range(3):
        stub.behave("lacking umount")
        abort(volume)
        # where something is mounted below it dies before; no place keeps it from going to the others
        both = [pid for pid in pids if pid != pids[1]]
        eventually(lambda: all(len({m["dev"] for m in mounts_of(volume, pid)}) == 2 for pid in both),
                   what=lambda: f"both {i} {volume.node.plugin.text()}")
        if i == 1:  # and the one that was to stay dies as well
            abort(volume, both[0])
        stub.behave("real")
        is_served(volume, pids, str(volume.target()))
        eventually(lambda: Picture([volume], dict(enumerate(pids))) == before, what=f"{before}")
        assert reads(pids[1], sub / "mine") == "kept", f"{i} {volume.node.plugin.text()}"
        assert len(layers(pids[1], sub)) == 1


def test_a_helper_that_hangs_somewhere(stub, scene):
    """That place is left for later; all others are healed at once."""
    volume, pids = scene
    stub.behave("once hang")
    abort(volume)
    is_served(volume, pids, str(volume.target()))
    assert "hangs; its stale mount stays" in volume.node.plugin.text()
    volume.down()
    assert volume.node.is_clean()


def test_a_helper_that_is_not_there(stub, scene):
    volume, pids = scene
    (stub.directory / "holdfast-nsmount").rename(stub.directory / "away")
    abort(volume)
    eventually(lambda: "start holdfast-nsmount" in volume.node.plugin.text(), what="the error line")
    volume.unpublish()  # this needs no helper
    (stub.directory / "away").rename(stub.directory / "holdfast-nsmount")
    is_served(volume, ["self"], str(volume.staging))
    assert not volume.target().exists() and len(mounts_of(volume)) == 1
