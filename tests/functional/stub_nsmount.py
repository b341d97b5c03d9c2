#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""Stands in holdfast-nsmount's place and runs the real one, or misbehaves as the file "behaviour" next to it says; with "once" in
front the next one behaves."""

import os
import signal
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPORT = struct.Struct("=IIIiIxxxxQQIIIII512s512sxxxx")
BEGIN, VERSION = 1, 3


def behaviour():
    path = os.path.join(HERE, "behaviour")
    with open(path) as f:
        said = f.read().split()
    if said[0] != "once":
        return said
    with open(path, "w") as f:
        f.write("real")
    return said[1:]


def real(**kw):
    return subprocess.Popen([os.path.join(HERE, "real-nsmount")], close_fds=False, env={}, **kw)


def killed_at(n):
    """SIGKILL as soon as it has begun with its n-th place."""
    child = real(stdout=subprocess.PIPE)
    while report := child.stdout.read(REPORT.size):
        if REPORT.unpack(report)[1] == BEGIN:
            n -= 1
            if n == 0:
                child.kill()
        os.write(1, report)
    child.wait()
    os.kill(os.getpid(), signal.SIGKILL)


def hang_at_first():
    """It says where it begins, and goes no further."""
    child = real(stdout=subprocess.PIPE)
    while report := child.stdout.read(REPORT.size):
        if REPORT.unpack(report)[1] == BEGIN:
            child.kill()
            os.write(1, report)
            time.sleep(1000)
        os.write(1, report)


def main():
    how, *args = behaviour()
    if how == "real":
        sys.exit(real().wait())
    elif how == "killed":
        killed_at(int(args[0]))
    elif how == "hang":
        hang_at_first()
    elif how == "lacking":
        seccomp = os.path.join(HERE, "seccomp_exec.py")
        sys.exit(subprocess.Popen([seccomp, args[0], os.path.join(HERE, "real-nsmount")], close_fds=False, env={}).wait())
    elif how == "fail":
        sys.exit(1)
    elif how == "garbage":
        os.write(1, b"x" * REPORT.size)
    elif how == "short":
        os.write(1, b"\0" * 7)
    elif how == "foreign":
        os.write(1, REPORT.pack(VERSION + 1, BEGIN, *[0] * 10, b"", b""))
    elif how == "lie":  # of a volume that there is not
        os.write(1, REPORT.pack(VERSION, 2, 1 << 31, *[0] * 9, b"", b""))
        os.write(1, REPORT.pack(VERSION, 6, 0, -5, *[0] * 8, b"", b"nothing was done"))


if __name__ == "__main__":
    main()
