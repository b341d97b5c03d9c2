# SPDX-License-Identifier: Apache-2.0
"""System calls on mounts that Python lacks. Nothing of ours is imported here: children use it in other namespaces."""

import ctypes
import os
import struct
import threading

SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT, SYS_MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
FSCONFIG_CMD_CREATE = 6
AT_FDCWD, AT_EMPTY_PATH, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = -100, 0x1000, 1, 4, 0x100000
CLONE_NEWNS = 0x20000
MS_REC, MS_BIND, MS_SHARED, MNT_DETACH = 0x4000, 0x1000, 1 << 20, 2

libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def descriptor(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def bind(source, target):
    checked(libc.mount(str(source).encode(), str(target).encode(), None, MS_BIND, None), f"bind {source}")


def make_shared(target):
    checked(libc.mount(b"none", str(target).encode(), None, MS_SHARED, None), f"make {target} shared")


def umount(target):
    checked(libc.umount2(str(target).encode(), MNT_DETACH), f"umount {target}")


def tmpfs(target):
    checked(libc.mount(b"none", str(target).encode(), b"tmpfs", 0, None), f"tmpfs {target}")


def hung_fuse(target, source="hung", fstype="fuse"):
    """A FUSE mount whose server never says a word; returns the descriptor that keeps it so."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    checked(libc.mount(source.encode(), str(target).encode(), fstype.encode(), 0, options), f"fuse {target}")
    return fd


def silent_fuse(target):
    """A FUSE mount whose server takes each request and answers none: who waits for it can't be killed. It ends with its server."""
    fd = hung_fuse(target)

    def serve():
        _, _, unique = struct.unpack_from("=IIQ", os.read(fd, 1 << 20))
        init = struct.pack("=IIIIHHII32x", 7, 31, 0, 0, 12, 9, 4096, 1)
        os.write(fd, struct.pack("=IiQ", 16 + len(init), 0, unique) + init)
        while True:
            os.read(fd, 1 << 20)

    threading.Thread(target=serve, daemon=True).start()
    return fd


def enter(pid):
    """Go to the mount namespace of a process and to its root; what was open stays."""
    root, namespace = os.open(f"/proc/{pid}/root", os.O_PATH), os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    checked(libc.setns(namespace, CLONE_NEWNS), "setns")
    os.fchdir(root)
    os.chroot(".")
    os.close(root)
    os.close(namespace)


def idmapped(source, userns, pid, target):
    """An idmapped copy of a mount that we have, with the mapping of a user namespace; goes to the mount namespace of a process and
    leaves it there."""
    tree = descriptor(libc.syscall(SYS_OPEN_TREE, AT_FDCWD, source.encode(), OPEN_TREE_CLONE), "open_tree")
    userns = os.open(userns, os.O_RDONLY)
    attr = struct.pack("=QQQQ", MOUNT_ATTR_IDMAP, 0, 0, userns)
    checked(libc.syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attr, len(attr)), "mount_setattr")
    enter(pid)
    checked(libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH), "move_mount")


def fusectl():
    """A detached mount of it, which no watcher of mounts notices."""
    fs = descriptor(libc.syscall(SYS_FSOPEN, b"fusectl", 0), "fsopen")
    try:
        checked(libc.syscall(SYS_FSCONFIG, fs, FSCONFIG_CMD_CREATE, None, None, 0), "fsconfig")
        return descriptor(libc.syscall(SYS_FSMOUNT, fs, 0, 0), "fsmount")
    finally:
        os.close(fs)
