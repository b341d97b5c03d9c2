#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""A worker in a few lines, independent of the real one: it serves one directory with one file, or misbehaves as
HOLDFAST_STUB says. For tests of the keeper alone."""

import errno
import fcntl
import mmap
import os
import socket
import struct
import sys
import time

START, DEV, LEDGER, STATUS = 3, 3, 4, 6
SIZE, ROOM, TOUCHED = 1 << 20, 2 << 20, 1 << 16
MADV_POPULATE_WRITE = 23
LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE = 1, 2, 3, 14, 15, 17, 18
FLUSH, INTERRUPT, BATCH_FORGET = 25, 36, 42


def report(code=0, text="", version=1):
    s = socket.socket(fileno=STATUS)
    s.send(struct.pack("=Ii240s", version, code, text.encode()))
    s.detach()


def take_order():
    """The descriptors, at their places; exits when no order comes."""
    s = socket.socket(fileno=START)
    os.dup2(START, STATUS)
    message, fds, _, _ = socket.recv_fds(s, 64, 4)
    if not message:
        sys.exit(0)
    s.detach()
    assert struct.unpack("=II", message) == (1, 0) and len(fds) == 3
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in fds]
    for fd in fds:
        os.close(fd)
    for place, fd in enumerate(high, DEV):
        os.dup2(fd, place, inheritable=False)
        os.close(fd)


def inbox():
    """Where requests are read to, so that the last one outlives us: the ledger's end, which nobody else looks at. Its first pages
    are there, because a worker that is killed while the kernel has to make one fails the request."""
    place = mmap.mmap(LEDGER, ROOM, offset=os.fstat(LEDGER).st_size - ROOM)
    place.madvise(MADV_POPULATE_WRITE, 0, TOUCHED)
    return place


def take_over(place):
    """The request that a worker before us had in hand, and those that one had swallowed (FUSE_NOTIFY_RESEND, Linux 6.9)."""
    size = struct.unpack_from("=I", place)[0]
    if size:
        try_to(serve_one, place[:size])
    try_to(os.write, DEV, struct.pack("=IiQ", 16, 7, 0))


def try_to(call, *args):
    """Whatever the kernel says, but for the end of the connection."""
    try:
        return call(*args)
    except OSError as e:
        if e.errno == errno.ENODEV:
            sys.exit(0)
        if e.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN, errno.EINVAL):
            raise


def attr(node):
    mode = 0o40755 if node == 1 else 0o100644
    return struct.pack("=QQQQQQIIIIIIIIII", node, 0 if node == 1 else SIZE, SIZE // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0,
                       0, 4096, 0)


def reply(unique, body=b"", error=0):
    os.write(DEV, struct.pack("=IiQ", 16 + len(body), -error, unique) + body)


def serve_one(data):
    _, opcode, unique, node = struct.unpack_from("=IIQQ", data)
    body = data[40:]
    if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
        return
    if opcode == LOOKUP and body.rstrip(b"\0") == b"file":
        reply(unique, struct.pack("=QQQQII", 2, 1, 1, 1, 0, 0) + attr(2))
    elif opcode == GETATTR:
        reply(unique, struct.pack("=QII", 1, 0, 0) + attr(node))
    elif opcode == OPEN:
        reply(unique, struct.pack("=QIi", 0, 1, 0))  # FOPEN_DIRECT_IO: every read asks
    elif opcode == READ:
        offset, size = struct.unpack_from("=QI", body, 8)
        reply(unique, bytes((offset + i) % 251 for i in range(max(0, min(size, SIZE - offset)))))
    elif opcode == STATFS:
        reply(unique, struct.pack("=QQQQQIIII24x", 100, 50, 50, 10, 5, 4096, 255, 4096, 0))
    elif opcode in (RELEASE, FLUSH):
        reply(unique)
    else:
        reply(unique, error=errno.ENOENT if opcode == LOOKUP else errno.ENOSYS)


def serve():
    place = inbox()
    take_over(place)
    report()
    while True:
        size = try_to(os.readv, DEV, [place])
        if size:
            try_to(serve_one, place[:size])


def eat(mib):
    """Serves, and takes that much memory."""
    report()
    return [os.urandom(4096) * 256 for _ in range(mib)]


def main():
    take_order()
    behaviour = os.environ.get("HOLDFAST_STUB", "serve")
    if os.path.exists(behaviour):  # a file: changed while the keeper runs
        with open(behaviour) as f:
            behaviour = f.read().strip()
    if behaviour == "serve":
        serve()
    elif behaviour == "fail":
        report(-errno.ENOMEM, "no memory for nodes")
        sys.exit(1)
    elif behaviour == "mute":
        print("mute worker", file=sys.stderr, flush=True)
        time.sleep(1000)
    elif behaviour == "swallow":  # every request is read, none answered
        place = inbox()
        report()
        while os.readv(DEV, [place]):
            pass
    elif behaviour.startswith("stat "):
        report()
        os.stat(behaviour[len("stat "):])
    elif behaviour.startswith("eat once "):  # the next worker serves
        with open(os.environ["HOLDFAST_STUB"], "w") as f:
            f.write("serve")
        eat(int(behaviour.split()[2]))
    elif behaviour.startswith("eat "):
        eat(int(behaviour.split()[1]))
    elif behaviour == "exit":
        sys.exit(3)
    elif behaviour == "garbage":
        os.write(STATUS, b"x" * 40)
        time.sleep(1000)
    elif behaviour == "foreign":
        report(version=99)
        time.sleep(1000)
    elif behaviour == "inspect":
        fds = sorted((int(n), os.readlink(f"/proc/self/fd/{n}")) for n in os.listdir("/proc/self/fd")
                     if os.path.exists(f"/proc/self/fd/{n}") or int(n) < 7)
        print("INSPECT", fds, open("/proc/self/oom_score_adj").read().strip(), file=sys.stderr, flush=True)
        serve()


main()
