# SPDX-License-Identifier: Apache-2.0
"""The keeper's control protocol (recovery/control.h), spoken by an independent client."""

import array
import ctypes
import os
import socket
import struct

MAGIC, VERSION = 0x54464C48, 4
ADD, MOUNT, REMOVE, LIST, ESCROW, ADOPT = 1, 2, 3, 4, 5, 6
HANDOVER, HANDOVER_COMMIT = 9, 20
MORE = 1
READ_ONLY = 1
AUTO, UPCALL_FREE, PASSTHROUGH, WORKER = range(4)
STARTING, SERVING, RESTARTING, DEAD = range(4)
HEAL = 12  # the plugin's

HEADER = struct.Struct("=IHHIIII")  # magic, version, type, size, serial, flags, reserved
CONFIG = struct.Struct("=136sIIIIIIQQQ")  # id, flags, mode, consistency, group, max_read, reserved, timeouts, memory
SOURCE_MAX = 4096
REQUEST_SIZE = HEADER.size + CONFIG.size + SOURCE_MAX
CODE = struct.Struct("=iI512s")
STATUS = struct.Struct("=184s72sQQQQQQQIIQiI352s")
REPLY_SIZE = HEADER.size + CODE.size + STATUS.size

SYS_OPEN_TREE, SYS_MOVE_MOUNT = 428, 429
OPEN_TREE_CLONE, AT_EMPTY_PATH, MOVE_MOUNT_F_EMPTY_PATH, MNT_DETACH = 1, 0x1000, 4, 2
AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)


def header(kind, size=REQUEST_SIZE, serial=7, magic=MAGIC, version=VERSION, flags=0, reserved=0):
    return HEADER.pack(magic, version, kind, size, serial, flags, reserved)


def config(volume="", flags=0, mode=AUTO, consistency=0, reserved=0, memory=0):
    return CONFIG.pack(volume.encode() if isinstance(volume, str) else volume, flags, mode, consistency, 0, 0, reserved,
                       0, 0, memory)


def body(volume="", source="", **kw):
    """All behind the header."""
    return config(volume, **kw) + source.encode().ljust(SOURCE_MAX, b"\0")


def request(kind, volume="", source="", **kw):
    return header(kind) + body(volume, source, **kw)


class Reply:
    def __init__(self, data, fds):
        assert len(data) == REPLY_SIZE, len(data)
        self.magic, self.version, self.type, self.size, self.serial, self.flags, _ = HEADER.unpack_from(data)
        self.code, self.kind, text = CODE.unpack_from(data, HEADER.size)
        self.text = text.split(b"\0")[0].decode()
        (cfg, _, self.dev, self.waiting, self.restarts, self.requests, self.oom_kills, self.oom_kills_recent,
         self.source_wait_ms, self.poisoned, self.poison_opcode, self.poison_nodeid, self.pid, self.state,
         reason) = STATUS.unpack_from(data, HEADER.size + CODE.size)
        self.id = cfg.split(b"\0")[0].decode()
        self.reason = reason.split(b"\0")[0].decode()
        self.fds = fds


class Control:
    """One connection to the keeper, or to the plugin's watchdog."""

    def __init__(self, run_dir, timeout=20, name="keeper.sock"):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(timeout)
        self.socket.connect(str(run_dir / name))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data, fds=()):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([data], ancillary)

    def receive(self):
        """A reply, or None when the keeper has closed the connection."""
        room = socket.CMSG_SPACE(8 * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self.socket.recvmsg(REPLY_SIZE + 64, room)
        except ConnectionResetError:
            return None
        if not data:
            return None
        fds = array.array("i")
        for level, kind, content in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(content)
        return Reply(data, list(fds))

    def call(self, data, fds=()):
        self.send(data, fds)
        return self.receive()


def call(run_dir, data, fds=()):
    with Control(run_dir) as c:
        return c.call(data, fds)


def add(run_dir, volume, source, **kw):
    """Add a volume; the reply, whose fds hold the mount alone: what came along for an escrow is closed."""
    fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
    try:
        reply = call(run_dir, request(ADD, volume, **kw), [fd])
    finally:
        os.close(fd)
    if reply.fds:
        *for_escrow, mount = reply.fds  # the mount to attach is in the source's place
        for other in for_escrow:
            os.close(other)
        reply.fds = [mount]
    return reply


def escrow(run_dir, volume):
    """What an escrow of the volume holds: mount, device, ledger, source; owned by the caller."""
    reply = call(run_dir, request(ESCROW, volume))
    assert reply.code == 0 and len(reply.fds) == 4, reply.text
    return reply.fds


def adopt(run_dir, volume, fds):
    """Give a volume back; the reply."""
    return call(run_dir, request(ADOPT, volume), fds)


def remove(run_dir, volume):
    reply = call(run_dir, request(REMOVE, volume))
    assert reply.code == 0, reply.text


def listing(run_dir):
    """The keeper's volumes: id -> reply."""
    volumes = {}
    with Control(run_dir) as c:
        c.send(request(LIST))
        while True:
            reply = c.receive()
            assert reply.code == 0
            if not reply.flags & MORE:
                return volumes
            volumes[reply.id] = reply


def attach(mount_fd, target):
    """Move a detached mount to a directory; the descriptor is closed."""
    r = _libc.syscall(SYS_MOVE_MOUNT, mount_fd, b"", AT_FDCWD, str(target).encode(), MOVE_MOUNT_F_EMPTY_PATH)
    error = ctypes.get_errno()
    os.close(mount_fd)
    if r != 0:
        raise OSError(error, "move_mount")


def detach(target):
    if _libc.umount2(str(target).encode(), MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), "umount2")
