# SPDX-License-Identifier: Apache-2.0
"""A volume's memory limit: real cgroups below the keeper's own, the out-of-memory killer, and what is done without."""

import errno
import hashlib
import os
import pathlib
import re
import signal
import subprocess

import grpc
import pytest

import control
from harness import BUILD, eventually, listens, mountinfo, refused
from test_keeper import CONTENT, Keeper, ctl, gone

MIB = 1 << 20
LIMIT = 32 * MIB
HOSTILE = ["../../escape", "/", "..", ".", "a/../../../b", "holdfast-keeper", "x" * 128, "new\nline", "cgroup.procs",
           "\xe9\u2028"]


class Hierarchy:
    """The hierarchy that has the memory controller, of version 2 or 1, and where cgroups can be made in it."""

    def __init__(self):
        mounts = mountinfo()
        v1 = [m for m in mounts if m["fstype"] == "cgroup" and "memory" in m["super"]]
        self.v2 = not v1
        mount = (v1 or [m for m in mounts if m["fstype"] == "cgroup2"])[0]
        self.mount = pathlib.Path(mount["target"])
        self.name, self.limit = ("cgroup v2", "memory.max") if self.v2 else ("cgroup v1", "memory.limit_in_bytes")
        # a cgroup with processes, as ours is, has no others below it in version 2
        self.top = self.mount if self.v2 else self.mount / os.path.relpath(self.path_of("self"), mount["root"])

    def path_of(self, pid):
        for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" if self.v2 else "memory" in controllers.split(","):
                return path
        raise AssertionError(f"{pid} is in no cgroup")


class Contained(Keeper):
    """A keeper in a cgroup of its own, as in a container."""

    def __init__(self, node, stub=True):
        if stub:
            super().__init__(node)
        else:
            self.node, self.run_dir, self.daemon = node, node.run_dir, node.keeper
        self.hierarchy = Hierarchy()
        self.cgroup = self.hierarchy.top / f"test-{node.base.name}"
        self.cgroup.mkdir()
        self.prefix = f"holdfast-{hashlib.sha256(str(self.run_dir).encode()).hexdigest()[:8]}-"

    def behave(self, how):
        """At once: workers start again and again and must not find half of it."""
        new = self.behaviour.with_suffix(".new")
        new.write_text(how)
        new.replace(self.behaviour)

    def start(self, *shell, wrapper=("unshare", "--mount")):
        """After these commands of a shell, in a mount namespace of its own."""
        if self.hierarchy.v2 and "memory" in (self.cgroup / "cgroup.subtree_control").read_text():
            (self.cgroup / "cgroup.subtree_control").write_text("-memory")  # an earlier keeper's
        script = f'echo $$ > "{self.cgroup}/cgroup.procs" && exec {" ".join(wrapper)} "$@"'
        inner = " && ".join([*shell, 'exec "$@"'])
        with open(self.daemon.log, "ab") as log:
            self.daemon.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "sh", "-c", script, "sh", "sh", "-c", inner, "sh",
                 str(BUILD / "holdfast-keeper"), *self.daemon.args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.daemon.env})
        eventually(lambda: listens(self.run_dir / "keeper.sock"), what="keeper's socket")
        return self

    def groups(self):
        """The cgroups of its volumes."""
        return {p for p in self.cgroup.iterdir() if p.name.startswith(self.prefix) and not p.name.endswith("-keeper")}

    def group(self, volume="v1"):
        """The cgroup of a volume that is being served."""
        pid = str(self.serving(volume).pid)
        return next(g for g in self.groups() if pid in (g / "cgroup.procs").read_text().split())

    def limit_of(self, group):
        return int((group / self.hierarchy.limit).read_text())

    def remove(self):
        self.daemon.stop()
        for group in [*self.cgroup.glob("*/"), self.cgroup]:
            eventually(lambda: not (group / "cgroup.procs").read_text(), what=f"{group} to be empty")
            group.rmdir()


@pytest.fixture
def idle_keeper(bare_node):
    keeper = Contained(bare_node)
    yield keeper
    keeper.remove()


@pytest.fixture
def keeper(idle_keeper):
    return idle_keeper.start()


def added(keeper, volume="v1", memory=LIMIT):
    return keeper.added(volume, memory=memory)


def kill_by_memory(keeper, volume="v1"):
    """The present worker dies, its successor eats too much, and the next one serves."""
    before = keeper.serving(volume)
    keeper.behave(f"eat {4 * LIMIT // MIB}")
    os.kill(before.pid, 9)
    eventually(lambda: keeper.volume(volume).oom_kills > before.oom_kills, what="an out-of-memory kill")
    keeper.behave("serve")
    return keeper.serving(volume)


def test_a_volume_with_a_limit_has_a_cgroup_as_long_as_it_is_there(keeper):
    target = added(keeper)
    group = keeper.group()
    assert keeper.groups() == {group} and keeper.limit_of(group) == LIMIT
    assert (group / "cgroup.procs").read_text().split() == [str(keeper.volume().pid)]
    assert f"memory limit of 32Mi by {keeper.hierarchy.name}" in keeper.daemon.text()
    os.kill(keeper.volume().pid, 9)
    assert (target / "file").read_bytes() == CONTENT
    assert keeper.group() == group
    control.detach(target)
    control.remove(keeper.run_dir, "v1")
    assert keeper.groups() == set()


def test_a_volume_without_a_limit_has_none(keeper):
    keeper.added()
    path_of = keeper.hierarchy.path_of
    assert path_of(keeper.volume().pid) == path_of(keeper.daemon.pid) and keeper.groups() == set()
    assert "memory limit" not in keeper.daemon.text()


def test_a_worker_that_takes_too_much_is_killed_and_taken_over(keeper):
    target = added(keeper)
    with open(target / "file", "rb", buffering=0) as f:
        volume = kill_by_memory(keeper)
        assert os.pread(f.fileno(), 4096, 4096) == CONTENT[4096:8192]
    assert volume.reason == "killed by the out-of-memory killer at its limit of 32Mi"
    assert (volume.restarts, volume.oom_kills_recent) == (1 + volume.oom_kills, volume.oom_kills)
    status = keeper.node.status()["v1"]
    # the next worker may have come to the limit meanwhile
    assert volume.oom_kills <= status["oomKills"] <= keeper.volume().oom_kills and status["memoryLimit"] == LIMIT
    assert "out-of-memory killer at its limit" in ctl(keeper, "status").stdout


def test_the_others_go_on(keeper):
    added(keeper)
    added(keeper, "v2")
    pid = keeper.volume("v2").pid
    kill_by_memory(keeper)
    assert (keeper.volume("v2").pid, keeper.volume("v2").oom_kills) == (pid, 0)


def test_an_ordinary_death_is_not_taken_for_one_by_memory(keeper):
    added(keeper)
    kills = kill_by_memory(keeper).oom_kills
    os.kill(keeper.serving().pid, 9)
    eventually(lambda: "signal 9" in keeper.volume().reason, what="the keeper to notice")
    assert keeper.volume().oom_kills == kills


def test_a_kill_for_somebody_elses_limit_is_told_from_one_for_its_own(idle_keeper):
    (idle_keeper.cgroup / idle_keeper.hierarchy.limit).write_text(str(64 * MIB))
    idle_keeper.start()
    idle_keeper.added(memory=1 << 30)
    idle_keeper.behave("eat 200")
    os.kill(idle_keeper.serving().pid, 9)
    volume = eventually(lambda: (v := idle_keeper.volume()).oom_kills and v, what="an out-of-memory kill")
    assert volume.reason == "killed by the out-of-memory killer of node or container, not at its limit of 1Gi"
    assert volume.oom_kills_recent == 0


@pytest.mark.parametrize("volume", HOSTILE)
def test_an_id_can_not_lead_out_of_the_directory(keeper, volume):
    for fd in keeper.add(volume, memory=LIMIT).fds:
        os.close(fd)
    (group,) = keeper.groups()
    assert (group / "cgroup.procs").read_text().split() == [str(keeper.volume(volume).pid)]
    assert set(group.name.removeprefix("holdfast-")) <= set("0123456789abcdef-")
    control.remove(keeper.run_dir, volume)
    assert keeper.groups() == set()


def test_many_volumes_have_each_their_own(keeper):
    names = [f"v{i}" for i in range(10)]
    for name in names:
        for fd in keeper.add(name, memory=LIMIT).fds:
            os.close(fd)
    mine = {keeper.group(name) for name in names}
    assert len(mine) == 10 and keeper.groups() == mine
    for name in names:
        control.remove(keeper.run_dir, name)
    assert keeper.groups() == set()


def test_a_volume_that_never_serves_leaves_no_cgroup(keeper):
    keeper.behave("fail")
    assert keeper.add(memory=LIMIT).code == -errno.ENOMEM
    assert keeper.groups() == set()


def test_the_next_keeper_removes_what_a_killed_one_left(keeper):
    added(keeper)
    group, pid = keeper.group(), keeper.volume().pid
    keeper.daemon.kill()
    eventually(lambda: gone(pid), what="the worker to die with it")
    assert group.exists()
    keeper.start()
    assert not group.exists()


def replaced(keeper, pid):
    """Wait until a worker of the keeper that is there now serves."""
    return eventually(lambda: (v := keeper.volume()).state == control.SERVING and v.pid != pid and v, what="the next worker")


def test_a_keeper_that_is_executed_anew_goes_on_with_the_cgroups(keeper):
    added(keeper)
    group = keeper.group()
    inode, kills = group.stat().st_ino, kill_by_memory(keeper).oom_kills
    for _ in range(2):
        pid = keeper.serving().pid
        keeper.daemon.process.send_signal(signal.SIGHUP)
        replaced(keeper, pid)
        assert keeper.groups() == {group} and keeper.group().stat().st_ino == inode
        assert keeper.limit_of(group) == LIMIT
    assert kills and kill_by_memory(keeper).reason == "killed by the out-of-memory killer at its limit of 32Mi"
    control.remove(keeper.run_dir, "v1")
    assert keeper.groups() == set()


def test_a_successor_in_the_same_cgroup_goes_on_with_those_of_the_volumes(keeper):
    added(keeper)
    group, pid, first = keeper.group(), keeper.volume().pid, keeper.daemon.process
    inode = group.stat().st_ino
    if keeper.hierarchy.v2:
        pytest.skip("in version 2 nobody can be started in a cgroup that has passed on its controllers")
    keeper.start()
    replaced(keeper, pid)
    assert first.wait(20) == 0
    assert keeper.groups() == {group} and keeper.group().stat().st_ino == inode
    control.remove(keeper.run_dir, "v1")
    assert keeper.groups() == set()


def test_a_cgroup_that_can_not_be_removed_is_removed_later(keeper):
    target = added(keeper)
    group = keeper.group()
    control.detach(target)
    with subprocess.Popen(["sleep", "1000"]) as stranger:  # as a worker that does not die
        try:
            (group / "cgroup.procs").write_text(str(stranger.pid))
            control.remove(keeper.run_dir, "v1")
            assert group.exists()
            added(keeper, "v2")
            assert group.exists()
            added(keeper)  # the same one is used again
            assert keeper.group() == group
            control.remove(keeper.run_dir, "v1")
        finally:
            stranger.kill()
    assert group.exists()
    control.remove(keeper.run_dir, "v2")
    assert not group.exists()


def test_sigterm_removes_the_cgroups(keeper):
    added(keeper)
    added(keeper, "v2")
    assert len(keeper.groups()) == 2
    assert keeper.daemon.terminate() == 0
    assert keeper.groups() == set()


# without cgroups


def data_limit(pid):
    return re.search(r"^Max data size +(\w+)", pathlib.Path(f"/proc/{pid}/limits").read_text(), re.M)[1]


HIDDEN = {
    "unmounted": 'awk \'$3 ~ /^cgroup/ {print $2}\' /proc/mounts | tac | xargs -n1 umount -l',
    "read-only": 'awk \'$3 ~ /^cgroup/ {print $2}\' /proc/mounts | xargs -n1 mount -o remount,bind,ro',
    "hidden by something else": 'awk \'$3 ~ /^cgroup/ {print $2}\' /proc/mounts | tac | xargs -n1 mount -t tmpfs none',
}


@pytest.mark.parametrize("how", HIDDEN)
def test_without_a_cgroup_the_worker_has_a_limit_of_its_own(idle_keeper, how):
    idle_keeper.start(HIDDEN[how])
    target = added(idle_keeper)
    pid = idle_keeper.volume().pid
    path_of = idle_keeper.hierarchy.path_of
    assert path_of(pid) == path_of(idle_keeper.daemon.pid) and idle_keeper.groups() == set()
    assert "memory limit of 32Mi by RLIMIT_DATA" in (log := idle_keeper.daemon.text())
    why = "Read-only" if how == "read-only" else "it is not mounted"
    assert why in log.partition(f"not by {idle_keeper.hierarchy.name}: ")[2].partition("; not by")[0]
    assert LIMIT <= int(data_limit(pid)) < LIMIT + 64 * MIB
    assert data_limit(idle_keeper.daemon.pid) == "unlimited"
    idle_keeper.behave("eat 200")
    os.kill(pid, 9)
    eventually(lambda: idle_keeper.volume().restarts >= 2, what="a worker that is refused memory")
    idle_keeper.behave("serve")
    assert int(data_limit(idle_keeper.serving().pid)) >= LIMIT
    assert (target / "file").read_bytes() == CONTENT
    control.detach(target)
    control.remove(idle_keeper.run_dir, "v1")


def test_the_hierarchy_is_found_wherever_it_is_mounted(idle_keeper):
    """As in a container: a cgroup namespace, and the hierarchy on a path that nobody would guess."""
    place = idle_keeper.node.base / "a place"
    place.mkdir()
    kind = "cgroup2" if idle_keeper.hierarchy.v2 else "cgroup -o memory"
    idle_keeper.start(HIDDEN["unmounted"], f'mount -t {kind} none "{place}"',
                      wrapper=("unshare", "--mount", "--cgroup"))
    added(idle_keeper)
    assert idle_keeper.limit_of(idle_keeper.group()) == LIMIT


def test_a_part_of_the_hierarchy_is_enough(idle_keeper):
    """As in a container without a cgroup namespace: only its own cgroup is mounted."""
    place = idle_keeper.node.base / "part"
    place.mkdir()
    idle_keeper.start(f'mount --bind "{idle_keeper.cgroup}" "{place}"', f'umount -l "{idle_keeper.hierarchy.mount}"')
    added(idle_keeper)
    assert idle_keeper.limit_of(idle_keeper.group()) == LIMIT


# by way of the plugin


@pytest.fixture
def real(bare_node):
    """A node whose keeper, with real workers, is contained."""
    keeper = Contained(bare_node, stub=False)
    yield keeper
    keeper.remove()


def test_the_condition_tells_when_it_repeats(keeper):
    keeper.node.start_plugin()
    volume = keeper.node.volume("v1", keeper.source, attributes={"memoryLimit": "32Mi", "mode": "worker"})
    volume.up()
    assert not volume.stats().volume_condition.abnormal
    keeper.behave(f"eat once {4 * LIMIT // MIB}")
    volume.kill_worker()
    eventually(lambda: volume.status()["oomKills"] == 1 and volume.worker(), what="one kill")
    condition = volume.stats().volume_condition
    assert not condition.abnormal and "out-of-memory killer at its limit of 32Mi" in condition.message
    kill_by_memory(keeper)
    condition = volume.stats().volume_condition
    assert condition.abnormal and "raise memoryLimit (now 32Mi)" in condition.message
    volume.down()
    assert keeper.node.is_clean() and keeper.groups() == set()


@pytest.mark.parametrize("cgroup", [True, False])
def test_a_real_worker_serves_within_the_least_limit(real, cgroup):
    real.start(*([] if cgroup else [HIDDEN["unmounted"]]))
    node = real.node
    node.start_plugin()
    source = node.make_source("data", {f"{i}/file": os.urandom(50000) for i in range(100)})
    volume = node.volume("v1", source, attributes={"memoryLimit": "16Mi", "mode": "worker"})
    target = volume.up()
    for i in range(100):
        assert (target / str(i) / "file").read_bytes() == (source / str(i) / "file").read_bytes()
    assert len(real.groups()) == cgroup and (data_limit(volume.worker()) == "unlimited") == cgroup
    volume.kill_worker()
    assert (target / "7" / "file").read_bytes() == (source / "7" / "file").read_bytes()
    assert volume.status()["oomKills"] == 0 and volume.status()["memoryLimit"] == 16 * MIB
    volume.down()
    node.is_clean()


@pytest.mark.parametrize("value, word", [
    ("15Mi", "the least is 16Mi"), ("0", "leave it out"), ("64MB", "512Mi"), ("-1", "512Mi"), ("1e9", "512Mi"),
    ("8Ei", "8Ei"),
])
def test_a_limit_that_makes_no_sense_is_refused(node, value, word):
    node.make_source("data")
    volume = node.volume("v1", attributes={"memoryLimit": value}, source=node.sources / "data")
    refused(volume.stage, grpc.StatusCode.INVALID_ARGUMENT, "memoryLimit", word)


def test_another_limit_is_another_volume(node):
    node.make_source("data")
    volume = node.volume("v1", attributes={"memoryLimit": "64Mi"}, source=node.sources / "data")
    volume.up()
    volume.attributes["memoryLimit"] = "67108864"  # the same
    volume.stage()
    volume.attributes["memoryLimit"] = "65Mi"
    refused(volume.stage, grpc.StatusCode.ALREADY_EXISTS, "memoryLimit is '64Mi'", "65Mi")
    del volume.attributes["memoryLimit"]
    refused(volume.stage, grpc.StatusCode.ALREADY_EXISTS, "memoryLimit is '64Mi'", "none")
