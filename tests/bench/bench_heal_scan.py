# SPDX-License-Identifier: Apache-2.0
"""How long holdfast-nsmount looks through the mount namespaces of a node, 200 of 50 mounts each, of which one or all have a mount of
the volume; and the time until a stale mount in one of them is exchanged. HOLDFAST_BENCH_NAMESPACES names another number."""

import ctypes
import os
import pathlib
import signal
import statistics
import struct
import subprocess
import tempfile
import time

from common import BASE, READ_ONLY, new_node, say, table
from stub_nsmount import REPORT, VERSION

NAMESPACES = int(os.environ.get("HOLDFAST_BENCH_NAMESPACES", "200"))
MOUNTS = 50
SAMPLES = 21
PROGRAM = pathlib.Path(os.environ["HOLDFAST_BUILD"]) / "holdfast-nsmount"
VOLUME = f"bench-{os.getpid()}"  # nobody else's on this machine

# recovery/nsmount.h and plan.h
REQUEST = struct.Struct(f"=IIII{16 * 256}x136s17QI4x")
EXCHANGED, FAILED, DONE, END = 2, 3, 4, 6

MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 0x4000, 1 << 18, 2
CLONE_NEWNS, PR_SET_PDEATHSIG, SYS_OPEN_TREE, AT_FDCWD, OPEN_TREE_CLONE = 0x20000, 1, 428, -100, 1
libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def mount(source, target, fstype=None, flags=0, data=None):
    encoded = [None if text is None else str(text).encode() for text in (source, target, fstype, data)]
    checked(libc.mount(*encoded[:3], flags, encoded[3]), f"mount {target}")


def mountinfo():
    return [line.split(" ") for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]


def device_number(target):
    return next(os.makedev(*map(int, fields[2].split(":"))) for fields in mountinfo() if fields[4] == str(target))


def mount_stale(target):
    """One like those of the volume, whose connection has ended. Its device number."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    mount(f"holdfast:{VOLUME}", target, "fuse.holdfast", MS_NOSUID | MS_NODEV,
          f"fd={device},rootmode=40000,user_id=0,group_id=0")
    os.close(device)
    return device_number(target)


def namespace(directory, prepare):
    """A process that sleeps in a mount namespace with 50 mounts. Its id, and what prepare() returned there: a number."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
            checked(libc.unshare(CLONE_NEWNS), "unshare")
            mount("none", "/", flags=MS_REC | MS_PRIVATE)
            number = prepare()
            for i in range(MOUNTS - len(mountinfo())):
                mount(f"emptydir-{i}", directory / f"kubernetes.io~empty-dir-{i}", "tmpfs")
            os.write(write_end, struct.pack("=Q", number))
            signal.pause()
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        return pid, struct.unpack("=Q", answer.read(8))[0]


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def run(live, dev, old=0):
    """Milliseconds until each event first came."""
    mount_fd = checked(libc.syscall(SYS_OPEN_TREE, AT_FDCWD, str(live).encode(), OPEN_TREE_CLONE), "open_tree")
    request_fd = os.memfd_create("request")
    os.write(request_fd, REQUEST.pack(VERSION, 1, 0, 0, VOLUME.encode(), dev, old, *[0] * 15, 0))
    high = [os.dup2(fd, 200 + i) for i, fd in enumerate((request_fd, mount_fd))]
    redirect = [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)]
    read_end, write_end = os.pipe()
    begin = time.monotonic()
    pid = os.posix_spawn(PROGRAM, [PROGRAM], {}, file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1), *redirect])
    os.close(write_end)
    times = {}
    with os.fdopen(read_end, "rb", buffering=0) as reports:
        while len(chunk := reports.read(REPORT.size)) == REPORT.size:
            report = REPORT.unpack(chunk)
            times.setdefault(report[1], (time.monotonic() - begin) * 1000)
            if report[1] == FAILED or (report[1] == END and report[3] != 0):
                raise RuntimeError(report[-1].rstrip(b"\0").decode())
    _, status = os.waitpid(pid, 0)
    for fd in (mount_fd, request_fd, *high):
        os.close(fd)
    if status != 0 or END not in times:
        raise RuntimeError(f"{PROGRAM} ended with status {status}")
    return times


def looks(live, dev):
    """The medians of a run that finds nothing stale."""
    runs = [run(live, dev) for _ in range(SAMPLES)]
    return {"looked through": (statistics.median(r[DONE] for r in runs), "ms", None),
            "whole run": (statistics.median(r[END] for r in runs), "ms", None)}


def rows_of(live, directory):
    dev, rows, pids = device_number(live), {}, []

    def without():
        for fields in mountinfo():
            if f"holdfast:{VOLUME}" in fields:
                checked(libc.umount2(fields[4].encode(), MNT_DETACH), "umount")
        return 0

    try:
        for name, prepare in ((f"{NAMESPACES}, none with the volume", without), (f"{NAMESPACES}, all with the volume", lambda: 0)):
            pids += [namespace(directory, prepare)[0] for _ in range(NAMESPACES)]
            rows[name] = looks(live, dev)
            exchanges = []
            for _ in range(SAMPLES):
                pid, old = namespace(directory, lambda: mount_stale(directory / "stale"))
                pids.append(pid)
                exchanges.append(run(live, dev, old)[EXCHANGED])
                end(pids.pop())
            rows[name]["one stale is exchanged"] = (statistics.median(exchanges), "ms", None)
            while pids:
                end(pids.pop())
    finally:
        for pid in pids:
            end(pid)
    return rows


def main():
    node = new_node()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="hf-bench-", dir=BASE))
    try:
        mount("bench", directory, "tmpfs")
        for name in ("stale", *(f"kubernetes.io~empty-dir-{i}" for i in range(MOUNTS))):
            (directory / name).mkdir()
        volume = node.volume(VOLUME, node.make_source("data", {"file": "x"}), **READ_ONLY)
        rows = rows_of(volume.up(), directory)
        table(f"namespaces of {MOUNTS} mounts, from the start of holdfast-nsmount on, median of {SAMPLES}",
              ["looked through", "whole run", "one stale is exchanged"], rows)
        say("(the whole run looks at what all processes have open, too)")
        volume.down()
    finally:
        libc.umount2(str(directory).encode(), MNT_DETACH)
        directory.rmdir()
        node.close()


if __name__ == "__main__":
    main()
