# SPDX-License-Identifier: Apache-2.0
"""holdfastctl swap: another version of a dataset at the same paths, while pods run."""

import contextlib
import os
import signal
import subprocess
import threading
import uuid

import pytest

from container import Container
from harness import BUILD, AccessMode, eventually

READ_WRITE = AccessMode.SINGLE_NODE_MULTI_WRITER
BIG = 2 << 20


def ctl(node, *args):
    return subprocess.run([BUILD / "holdfastctl", "--run-dir", node.run_dir, *args], capture_output=True, text=True,
                          timeout=60)


def swap(node, volume, source):
    said = ctl(node, "swap", volume.id, "--source", str(source))
    assert said.returncode == 0, said.stderr
    return said.stdout


def unique():
    """A volume's id that is nobody else's on this machine: what is stale is looked for in all mount namespaces."""
    return f"data-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def versions(node):
    """Two versions of a dataset, and a volume of the first."""
    node.make_source("v1", {"name": "one", "sub/name": "sub one", "only-1": "x", "big": b"1" * BIG})
    node.make_source("v2", {"name": "two", "sub/name": "sub two", "big": b"2" * BIG})
    return node.volume(unique(), node.sources / "v1", access=READ_WRITE)


def test_a_running_container_sees_the_new_version_at_once(node, versions):
    target = versions.up()
    container = Container(node, {"/data": (target, ["ro"]), "/sub": (target / "sub", [])})
    before = len(container.exec("cat", "/proc/self/mountinfo").splitlines())
    assert "shows" in swap(node, versions, node.sources / "v2")
    assert container.exec("cat", "/data/name") == "two" and container.exec("cat", "/sub/name") == "sub two"
    assert container.exec("ls", "/data").split() == ["big", "name", "sub"]
    assert (target / "name").read_text() == "two" and (versions.staging / "name").read_text() == "two"
    assert len(container.exec("cat", "/proc/self/mountinfo").splitlines()) == before
    assert versions.status()["source"] == str(node.sources / "v2")
    eventually(lambda: list(node.status()) == [versions.id], what="the connection before to end")
    container.remove()
    versions.down()
    assert node.is_clean()


def test_an_open_file_stays_on_the_old_version_until_it_is_closed(node, versions):
    target = versions.up()
    with open(target / "big", "rb", buffering=0) as f:
        swap(node, versions, node.sources / "v2")
        old = [v for v in node.status() if v != versions.id]
        assert len(old) == 1 and old[0].endswith(f":{versions.id}")
        for offset in (0, BIG - 4096):
            assert os.pread(f.fileno(), 4096, offset) == b"1" * 4096
        assert (target / "big").read_bytes() == b"2" * BIG
    eventually(lambda: list(node.status()) == [versions.id], what="the connection before to end")
    assert len(node.workers()) == 1


@pytest.mark.parametrize("victim", ["worker", "keeper", "plugin"])
def test_the_old_version_outlives_a_death(node, victim):
    node.make_source("v1", {"big": b"1" * BIG})
    node.make_source("v2", {"big": b"2" * BIG})
    volume = node.volume(unique(), node.sources / "v1", access=READ_WRITE, attributes={"mode": "worker"})
    target = volume.up()
    with open(target / "big", "rb", buffering=0) as f:
        swap(node, volume, node.sources / "v2")
        if victim == "worker":
            for pid in node.workers():
                os.kill(pid, signal.SIGKILL)
        elif victim == "keeper":
            workers = node.workers()
            node.keeper.kill()
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):  # it may have ended with its keeper
                    os.kill(pid, signal.SIGKILL)
            node.start_keeper()
        else:
            node.plugin.kill()
            node.start_plugin()
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(f.fileno(), 4096, BIG - 4096) == b"1" * 4096
        assert (target / "big").read_bytes() == b"2" * BIG
    eventually(lambda: list(node.status()) == [volume.id], what="the connection before to end")
    volume.down()
    assert node.is_clean()


def test_a_swapped_volume_is_healed_from_its_new_source(node, versions):
    target = versions.up()
    swap(node, versions, node.sources / "v2")
    node.abort_connections()
    eventually(lambda: "was healed" in node.plugin.text(), what="the healing")
    assert (target / "name").read_text() == "two"
    versions.publish()
    assert (target / "name").read_text() == "two"
    versions.down()
    assert node.is_clean()


def test_back_and_forth_under_readers(node, versions):
    """No reader ever sees an error, or anything but one of the two versions."""
    target, seen, errors, done = versions.up(), set(), [], threading.Event()

    def read():
        while not done.is_set():
            try:
                seen.add((target / "name").read_text())
            except OSError as e:
                errors.append(e)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(20):
        swap(node, versions, node.sources / f"v{2 - i % 2}")
    done.set()
    for reader in readers:
        reader.join()
    assert errors == [] and seen == {"one", "two"}
    eventually(lambda: list(node.status()) == [versions.id], what="the connections before to end")
    assert len(node.workers()) == 1


def test_a_swap_that_can_not_be_changes_nothing(node, versions):
    target = versions.up()
    for source, words in ((node.sources / "nothing", "does not exist"), ("/etc", "allow"), ("relative", "absolute"),
                          (node.sources / "v1" / "name", "directory")):
        said = ctl(node, "swap", versions.id, "--source", str(source))
        assert said.returncode == 1 and words in said.stderr, said.stderr
    said = ctl(node, "swap", "unknown", "--source", str(node.sources / "v2"))
    assert said.returncode == 1 and "unknown" in said.stderr
    assert "--source" in ctl(node, "swap", versions.id).stderr
    assert (target / "name").read_text() == "one" and list(node.status()) == [versions.id]
    assert versions.status()["source"] == str(node.sources / "v1")


def test_heal_by_hand(node, versions):
    versions.up()
    assert "are well" in ctl(node, "heal").stdout and "are well" in ctl(node, "heal", versions.id).stdout
    said = ctl(node, "heal", "unknown")
    assert said.returncode == 1 and "unknown" in said.stderr
    node.plugin.kill()
    said = ctl(node, "heal")
    assert said.returncode == 1 and "holdfast-csi" in said.stderr
