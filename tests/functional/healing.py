# SPDX-License-Identifier: Apache-2.0
"""What the tests of healing share: ways to end a connection, and a picture of a volume's mounts in every namespace, taken
before and after."""

import errno
import json
import os
import pathlib
import subprocess
import textwrap
import uuid

import control
from harness import AccessMode, eventually, mountinfo
from mounting import fusectl

READ_WRITE = AccessMode.SINGLE_NODE_MULTI_WRITER
FILES = {"f": "hello\n", "sub/g": "below\n", "sub/deep/h": "deeper\n", "one/file": "single\n"}


# What is mounted on a directory of a dead volume can be reached as long as the kernel need not ask for the directories on the way.
NAMES_STAY = {"entryTimeout": "1h", "attrTimeout": "1h"}


def make_volume(node, **kw):
    """Its id is nobody else's on this machine: healing looks into all mount namespaces."""
    name = f"heal-{uuid.uuid4().hex[:8]}"
    node.make_source(name, FILES)
    return node.volume(name, access=READ_WRITE, **kw)


def inside(pid, code, *args):
    """Run lines of Python, which know what mounting.py has and `args`, in the mount namespace of a process, at its root."""
    subprocess.run(["/usr/bin/python3", "-c", INSIDE.format(code=textwrap.dedent(code)), str(pid), *map(str, args)], check=True,
                   cwd=pathlib.Path(__file__).parent, timeout=30)


def stay_inside(node, pid, code, *args):
    """The same, by a process that stays afterwards until it is removed."""
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "/usr/bin/python3", "-c",
                                INSIDE.format(code=textwrap.dedent(code)) + STAY, str(pid), *map(str, args)],
                               cwd=pathlib.Path(__file__).parent, stdout=subprocess.PIPE)
    node._containers.append(Process(process))
    assert process.stdout.readline() == b"ready\n"
    return node._containers[-1]


class Process:
    def __init__(self, process):
        self.process = process

    @property
    def pid(self):
        return self.process.pid

    def remove(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)
        self.process.stdout.close()


STAY = """
import signal
print("ready", flush=True)
signal.pause()
"""

INSIDE = """
import sys
from mounting import *
pid, *args = sys.argv[1:]
enter(pid)
{code}
"""


# a volume's record


def record(volume):
    """What RUN_DIR/volumes has of it."""
    for path in (volume.node.run_dir / "volumes").iterdir():
        if path.name.startswith("."):  # being written, and not yet in its place
            continue
        try:
            entry = json.loads(path.read_text())
        except FileNotFoundError:
            continue
        if entry["id"] == volume.id:
            return entry
    return None


def healing(volume):
    return record(volume)["healing"]


# the ends of a connection


def abort(volume, pid="self"):
    eventually(lambda: try_abort(volume, pid=pid), what="a connection to abort")


def try_abort(volume, unless=0, pid="self"):
    """Returns its device number, 0 if it has no connection just now, or that one. Numbers are used again, by volumes of others too:
    so we look whether it is what a process has."""
    dev = (record(volume) or {"dev": 0})["dev"]
    if dev in (0, unless):
        return 0
    held = hold(volume, dev, pid)
    if held is None:
        return 0
    ctl = fusectl()
    try:
        pathlib.Path(f"/proc/self/fd/{ctl}/{os.minor(dev)}/abort").write_text("1")
        return dev
    except FileNotFoundError:
        return 0
    finally:
        os.close(ctl)
        os.close(held)


def hold(volume, dev, pid):
    """A descriptor on a mount with this number, which then can't become another's; None if it is not the volume's any more."""
    for m in mounts_of(volume, pid):
        if m["dev"] != f"0:{os.minor(dev)}":
            continue
        try:
            fd = os.open(f"/proc/{pid}/root{m['target']}", os.O_PATH)
        except OSError:
            continue
        info = pathlib.Path(f"/proc/self/fdinfo/{fd}").read_text()
        if f"mnt_id:\t{m['id']}\n" in info and m in mounts_of(volume, pid):
            return fd
        os.close(fd)
        if m in mounts_of(volume, pid):  # something covers it: then it is what keeps the number
            return os.open("/", os.O_PATH)
    return None


def kill_both(node):
    """Keeper and plugin at once: nobody has the connections any more."""
    workers = node.workers()
    node.plugin.kill()
    node.keeper.kill()
    eventually(lambda: all(is_zombie(w) for w in workers), what="workers to die")


def kill_and_start(volume):
    kill_both(volume.node)
    volume.node.start()


ENDS = {"abort": abort, "kill": kill_and_start}


def is_zombie(pid):
    """Or not even that."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def healed(volume, end="abort"):
    """End the connection, and wait until the plugin says that the volume is healed."""
    before = healing(volume)["healings"]
    ENDS[end](volume)
    eventually(lambda: healing(volume)["healings"] > before, what=lambda: f"healing: {volume.node.plugin.text()[-1500:]}")


def look_again(volume):
    """The watchdog looks at it now, as `holdfastctl heal` has it done."""
    with control.Control(volume.node.run_dir, name="plugin.sock") as plugin:
        reply = plugin.call(control.request(control.HEAL, volume.id))
    assert reply.code == 0, reply.text


# what is mounted where


def read(pid, path):
    """A file as a process sees it; for "self" as we do."""
    root = "" if pid == "self" else f"/proc/{pid}/root"
    return pathlib.Path(f"{root}{path}").read_text()


def reads(pid, path):
    """Its content, or the name of the error."""
    try:
        return read(pid, path)
    except OSError as e:
        return errno.errorcode[e.errno]


def layers(pid, path):
    """The mounts that lie on each other at a path."""
    return [m for m in mountinfo(pid) if m["target"] == str(path)]


def mounts_of(volume, pid="self"):
    return [m for m in mountinfo(pid) if m["source"] == f"holdfast:{volume.id}"]


def rename_group(optional, groups):
    """Peer groups by the order in which they are met, their numbers change."""
    tag, _, number = optional.partition(":")
    return f"{tag}:{groups.setdefault(number, len(groups) + 1)}"


class Picture:
    """The mounts of volumes in some namespaces: everything that an application could tell apart, but for numbers."""

    def __init__(self, volumes, pids):
        self.devs, self.mounts, groups = set(), {}, {}
        for name, pid in pids.items():
            for volume in volumes:
                for m in mounts_of(volume, pid):
                    self.devs.add((volume.id, m["dev"]))
                    kind = tuple(rename_group(o, groups) for o in m["optional"] if not o.startswith("propagate_from"))
                    entry = (m["root"], tuple(sorted(m["options"])), kind)
                    self.mounts.setdefault((name, volume.id, m["target"]), []).append(entry)

    def __eq__(self, other):
        return self.mounts == other.mounts

    def __repr__(self):
        return "\n".join(f"{k}: {v}" for k, v in sorted(self.mounts.items()))


def stays_the_same(volumes, pids, end="abort"):
    """Heal, and look: the same mounts with the same flags, root and propagation, all of other superblocks."""
    volumes = volumes if isinstance(volumes, list) else [volumes]
    before = Picture(volumes, pids)
    assert before.mounts
    for volume in volumes:
        healed(volume, end)
    after = Picture(volumes, pids)
    assert after == before, f"before:\n{before}\nafter:\n{after}\n{volumes[0].node.plugin.text()[-3000:]}"
    assert not after.devs & before.devs


# processes with mount namespaces


class Namespace(Process):
    """A process that sleeps in a new mount namespace, made by unshare(1): a peer of ours, or busybox's in a container."""

    def __init__(self, node, *options, inside=None):
        """inside: a process in whose mount namespace the new one is made, with the programs that are there."""
        enter = ["nsenter", f"--mount=/proc/{inside}/ns/mnt", "--"] if inside else []
        options = options or (() if inside else ("--propagation", "unchanged"))
        # each of these programs executes the next: it is one process
        super().__init__(subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *enter, "unshare", "-m", *options, "sh", "-c",
                                         "echo ready && exec sleep 100000"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL))
        node._containers.append(self)
        assert self.process.stdout.readline() == b"ready\n"


def place_idmapped(source, uid_map, gid_map, pid, target):
    """An idmapped copy of a mount on the host in the mount namespace of a process. The user namespace that the mapping comes from
    is gone afterwards."""
    helper = subprocess.Popen(["unshare", "--user", "sleep", "100000"])
    try:
        users = f"/proc/{helper.pid}/ns/user"
        eventually(lambda: os.readlink(users) != os.readlink("/proc/self/ns/user"), what="a user namespace")
        for kind, lines in (("uid", uid_map), ("gid", gid_map)):
            with open(f"/proc/{helper.pid}/{kind}_map", "w") as f:
                f.write(lines)
        inside("self", "idmapped(*args)", source, users, pid, target)
    finally:
        helper.kill()
        helper.wait()
