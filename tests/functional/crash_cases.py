# SPDX-License-Identifier: Apache-2.0
"""Operations for test_crash_points.py, each with the crash points that it comes to.

A case runs in a directory that holds the tree of make_tree(), on the volume and on a plain directory, which is the
reference: no outcome is written down here. What is written down is the matrix: the points that a request of that kind
comes to. Where a worker would have to die at any other point, the test asserts that it never got there.
"""

import ctypes
import errno
import os
import stat
import struct

POINTS = ("after-read", "after-intent", "after-call", "after-result", "in-record", "before-reply", "after-reply")

PLAIN = {"after-read", "before-reply", "after-reply"}  # nothing that must not run twice, no reference handed out
ONCE = PLAIN | {"after-intent", "after-call", "after-result"}  # a change that must not run twice
NOT_BEGUN = PLAIN | {"after-call", "after-result"}  # refused by the source, without an intent
ENTRY = PLAIN | {"in-record"}  # hands out a reference to a node, or takes one back
MAKES = ONCE | ENTRY
FORGETS = ENTRY - {"before-reply"}  # there is none
NEVER = set()  # the kernel does it without the worker

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK = 1, 2, 3, 4, 5, 6
MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK = 8, 9, 10, 11, 12, 13
OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 14, 15, 16, 17, 18, 20
SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR, FLUSH = 21, 22, 23, 24, 25
OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, ACCESS, CREATE = 27, 28, 29, 30, 34, 35
BATCH_FORGET, FALLOCATE, READDIRPLUS, RENAME2, LSEEK, COPY_FILE_RANGE, TMPFILE = 42, 43, 44, 45, 46, 47, 51

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
MANY = 400  # names that no one reply has room for
MODES = ("passthrough", "worker")
CASES = {}
READING = ["lookup", "lookup_missing", "get_attributes", "readlink", "statfs", "read", "lseek", "readdirplus",
           "getxattr", "getxattr_missing", "listxattr"]

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


class Case:
    def __init__(self, act, opcode, points, **kw):
        self.name, self.act, self.opcode, self.points = act.__name__, act, opcode, points
        self.opens = kw.pop("opens", None)  # (name, flags): what is open before
        self.race = kw.pop("race", None)  # what happens on the source once the worker has the request
        self.many = kw.pop("many", 0)  # names in the directory "many"
        assert not kw

    def points_in(self, mode):
        return self.points[mode] if isinstance(self.points, dict) else self.points

    def changes_names(self, mode):
        return self.points_in(mode) in (ONCE, MAKES)


def case(opcode, points, **kw):
    def register(act):
        CASES[act.__name__] = Case(act, opcode, points, **kw)
        return act
    return register


def make_tree(top, n_many):
    os.makedirs(f"{top}/full")
    os.mkdir(f"{top}/empty")
    for name, content in (("f", b"content"), ("g", b"another"), ("full/x", b"x")):
        with open(f"{top}/{name}", "wb") as f:
            f.write(content)
    os.symlink("f", f"{top}/l")
    os.setxattr(f"{top}/f", "user.a", b"value")
    os.mkdir(f"{top}/many")
    for i in range(n_many):
        touch(f"{top}/many/a-name-of-some-length-{i:04}")


def checked(r):
    if r < 0:
        raise OSError(ctypes.get_errno(), "libc")
    return r


def rename_flags(a, b, flags):
    return checked(libc.renameat2(AT_FDCWD, a.encode(), AT_FDCWD, b.encode(), flags))


def touch(path):
    with open(path, "x"):
        pass


class Opened:
    """A descriptor that a case leaves open; all are alike."""

    def __init__(self, fd):
        self.fd = fd

    def __eq__(self, other):
        return isinstance(other, Opened)


def facts(st):
    return st.st_mode, st.st_size, st.st_nlink, st.st_uid, st.st_gid


# what only looks


@case(LOOKUP, ENTRY)
def lookup(d):
    return facts(os.lstat(f"{d}/f"))


@case(LOOKUP, PLAIN)
def lookup_missing(d):
    return os.lstat(f"{d}/missing")


@case(GETATTR, PLAIN, opens=("f", os.O_PATH))
def get_attributes(d, fd):
    return facts(os.fstat(fd))


@case(READLINK, PLAIN)
def readlink(d):
    return os.readlink(f"{d}/l")


@case(STATFS, PLAIN)
def statfs(d):
    return os.statvfs(f"{d}/f").f_bsize


@case(OPEN, PLAIN)
def open_file(d):
    return Opened(os.open(f"{d}/f", os.O_RDONLY))


@case(OPEN, PLAIN)
def open_for_writing(d):
    return Opened(os.open(f"{d}/f", os.O_RDWR | os.O_APPEND))


@case(READ, {"worker": PLAIN, "passthrough": NEVER}, opens=("f", os.O_RDONLY))
def read(d, fd):
    return os.pread(fd, 100, 2)


@case(LSEEK, PLAIN, opens=("f", os.O_RDONLY))
def lseek(d, fd):
    return os.lseek(fd, 0, os.SEEK_HOLE)


@case(RELEASE, PLAIN)
def release(d):
    with open(f"{d}/f") as f:
        return f.fileno() > 0


@case(FLUSH, NEVER)
def flush(d):
    with open(f"{d}/f", "a") as f:
        return f.write("more")


@case(ACCESS, NEVER)
def access(d):
    return [os.access(f"{d}/f", mode) for mode in (os.R_OK, os.W_OK, os.X_OK)]


@case(OPENDIR, PLAIN)
def opendir(d):
    return Opened(os.open(f"{d}/full", os.O_RDONLY | os.O_DIRECTORY))


@case(RELEASEDIR, PLAIN)
def releasedir(d):
    os.close(os.open(f"{d}/full", os.O_RDONLY | os.O_DIRECTORY))


@case(READDIRPLUS, ENTRY, many=MANY)
def readdirplus(d):
    return sorted(os.listdir(f"{d}/many"))


@case(READDIR, PLAIN, many=MANY)
def readdir(d):
    return sorted(os.listdir(f"{d}/many"))


@case(GETXATTR, PLAIN)
def getxattr(d):
    return os.getxattr(f"{d}/f", "user.a")


@case(GETXATTR, PLAIN)
def getxattr_missing(d):
    return os.getxattr(f"{d}/f", "user.none")


@case(LISTXATTR, PLAIN)
def listxattr(d):
    return [name for name in os.listxattr(f"{d}/f") if name.startswith("user.")]


# attributes and data


@case(SETATTR, PLAIN)
def chmod(d):
    os.chmod(f"{d}/f", 0o6711)
    return facts(os.lstat(f"{d}/f"))


@case(SETATTR, PLAIN)
def chown(d):
    os.chown(f"{d}/f", 2001, 3001)
    return facts(os.lstat(f"{d}/f"))


@case(SETATTR, PLAIN)
def truncate(d):
    os.truncate(f"{d}/f", 3)


@case(SETATTR, PLAIN, opens=("f", os.O_RDWR))
def ftruncate(d, fd):
    os.ftruncate(fd, 100)
    return os.pread(fd, 200, 0)


@case(SETATTR, PLAIN)
def open_trunc(d):
    return Opened(os.open(f"{d}/f", os.O_WRONLY | os.O_TRUNC))


@case(SETATTR, PLAIN)
def utimens(d):
    os.utime(f"{d}/f", ns=(1_000_000_001, 2_000_000_002))
    st = os.stat(f"{d}/f")
    return st.st_atime_ns, st.st_mtime_ns


@case(WRITE, {"worker": PLAIN, "passthrough": NEVER}, opens=("f", os.O_RDWR))
def write(d, fd):
    return os.pwrite(fd, b"NEW", 5), os.pread(fd, 100, 0)


@case(WRITE, {"worker": ONCE, "passthrough": NEVER}, opens=("f", os.O_RDWR | os.O_APPEND))
def append(d, fd):
    return os.write(fd, b"more" * 100), os.lseek(fd, 0, os.SEEK_CUR)


@case(FSYNC, PLAIN, opens=("f", os.O_WRONLY))
def fsync(d, fd):
    os.fsync(fd)


@case(FSYNCDIR, PLAIN, opens=("full", os.O_RDONLY | os.O_DIRECTORY))
def fsyncdir(d, fd):
    os.fsync(fd)


@case(FALLOCATE, PLAIN, opens=("f", os.O_WRONLY))
def fallocate(d, fd):
    return checked(libc.fallocate(fd, 0, 4096, 20000))


@case(FALLOCATE, PLAIN, opens=("f", os.O_WRONLY))
def punch_hole(d, fd):
    return checked(libc.fallocate(fd, 3, 2, 3))


@case(COPY_FILE_RANGE, PLAIN, opens=("f", os.O_RDWR))
def copy_file_range(d, fd):
    source = os.open(f"{d}/g", os.O_RDONLY)
    try:
        return os.copy_file_range(source, fd, 5, 1, 4)
    finally:
        os.close(source)


# extended attributes


@case(SETXATTR, ONCE)
def setxattr(d):
    os.setxattr(f"{d}/f", "user.a", b"other")


@case(SETXATTR, ONCE)
def setxattr_create(d):
    os.setxattr(f"{d}/f", "user.b", b"new", os.XATTR_CREATE)


@case(SETXATTR, PLAIN)
def setxattr_create_existing(d):
    os.setxattr(f"{d}/f", "user.a", b"new", os.XATTR_CREATE)


@case(SETXATTR, ONCE)
def setxattr_replace(d):
    os.setxattr(f"{d}/f", "user.a", b"replaced", os.XATTR_REPLACE)


@case(SETXATTR, ONCE)
def setxattr_replace_missing(d):
    os.setxattr(f"{d}/f", "user.none", b"new", os.XATTR_REPLACE)


ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in (
    (1, 6, 0xffffffff), (2, 7, 2003), (4, 4, 0xffffffff), (16, 7, 0xffffffff), (32, 0, 0xffffffff)))


@case(SETXATTR, ONCE)
def set_acl(d):
    os.setxattr(f"{d}/f", "system.posix_acl_access", ACL)
    return os.getxattr(f"{d}/f", "system.posix_acl_access")


@case(REMOVEXATTR, ONCE)
def removexattr(d):
    os.removexattr(f"{d}/f", "user.a")


@case(REMOVEXATTR, NOT_BEGUN)
def removexattr_missing(d):
    os.removexattr(f"{d}/f", "user.none")


# names


@case(SYMLINK, MAKES)
def symlink(d):
    os.symlink("f", f"{d}/x")


@case(SYMLINK, PLAIN, race=lambda d: touch(f"{d}/x"))
def symlink_existing(d):
    os.symlink("f", f"{d}/x")


@case(MKNOD, MAKES)
def mknod(d):
    os.mknod(f"{d}/x", stat.S_IFREG | 0o640)


@case(MKNOD, MAKES)
def mknod_fifo(d):
    os.mkfifo(f"{d}/x", 0o640)


@case(MKNOD, PLAIN, race=lambda d: touch(f"{d}/x"))
def mknod_existing(d):
    os.mknod(f"{d}/x", stat.S_IFREG | 0o640)


@case(MKDIR, MAKES)
def mkdir(d):
    os.mkdir(f"{d}/x", 0o751)


@case(MKDIR, PLAIN, race=lambda d: os.mkdir(f"{d}/x"))
def mkdir_existing(d):
    os.mkdir(f"{d}/x")


@case(UNLINK, ONCE)
def unlink(d):
    os.unlink(f"{d}/f")


@case(UNLINK, ONCE, opens=("f", os.O_RDWR))
def unlink_open(d, fd):
    os.unlink(f"{d}/f")
    return facts(os.fstat(fd)), os.pread(fd, 100, 0), os.pwrite(fd, b"NEW", 0), os.pread(fd, 100, 0)


@case(UNLINK, ONCE, race=lambda d: os.unlink(f"{d}/f"))
def unlink_missing(d):
    os.unlink(f"{d}/f")


@case(RMDIR, ONCE)
def rmdir(d):
    os.rmdir(f"{d}/empty")


@case(RMDIR, ONCE)
def rmdir_full(d):
    os.rmdir(f"{d}/full")


@case(RMDIR, ONCE, race=lambda d: os.rmdir(f"{d}/empty"))
def rmdir_missing(d):
    os.rmdir(f"{d}/empty")


@case(RENAME, ONCE)
def rename(d):
    os.rename(f"{d}/f", f"{d}/x")


@case(RENAME, ONCE)
def rename_over(d):
    os.rename(f"{d}/f", f"{d}/g")


@case(RENAME, ONCE)
def rename_directory(d):
    os.rename(f"{d}/full", f"{d}/empty")


@case(RENAME, ONCE)
def rename_into(d):
    os.rename(f"{d}/f", f"{d}/full/x")


@case(RENAME, ONCE)
def rename_over_full(d):
    os.rename(f"{d}/empty", f"{d}/full")


@case(RENAME, ONCE, race=lambda d: os.unlink(f"{d}/f"))
def rename_missing(d):
    os.rename(f"{d}/f", f"{d}/x")


@case(RENAME2, ONCE)
def rename_noreplace(d):
    return rename_flags(f"{d}/f", f"{d}/x", NOREPLACE)


@case(RENAME2, ONCE, race=lambda d: touch(f"{d}/x"))
def rename_noreplace_existing(d):
    return rename_flags(f"{d}/f", f"{d}/x", NOREPLACE)


@case(RENAME2, ONCE)
def rename_exchange(d):
    return rename_flags(f"{d}/f", f"{d}/full", EXCHANGE)


@case(RENAME2, ONCE, race=lambda d: os.unlink(f"{d}/g"))
def rename_exchange_missing(d):
    return rename_flags(f"{d}/f", f"{d}/g", EXCHANGE)


@case(RENAME2, ONCE)
def rename_whiteout(d):
    return rename_flags(f"{d}/f", f"{d}/x", WHITEOUT), os.lstat(f"{d}/f").st_rdev


@case(LINK, MAKES)
def link(d):
    os.link(f"{d}/f", f"{d}/x")


@case(LINK, PLAIN, race=lambda d: touch(f"{d}/x"))
def link_existing(d):
    os.link(f"{d}/f", f"{d}/x")


@case(CREATE, MAKES)
def create(d):
    fd = os.open(f"{d}/x", os.O_CREAT | os.O_RDWR, 0o640)
    os.write(fd, b"created")
    return Opened(fd)


@case(CREATE, MAKES)
def create_excl(d):
    return Opened(os.open(f"{d}/x", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0))


@case(CREATE, PLAIN, race=lambda d: touch(f"{d}/x"))
def create_existing(d):
    return Opened(os.open(f"{d}/x", os.O_CREAT | os.O_WRONLY, 0o640))


@case(CREATE, PLAIN, race=lambda d: touch(f"{d}/x"))
def create_excl_existing(d):
    return Opened(os.open(f"{d}/x", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))


@case(TMPFILE, ENTRY)
def tmpfile(d):
    fd = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"nameless")
    checked(libc.linkat(AT_FDCWD, f"/proc/self/fd/{fd}".encode(), AT_FDCWD, f"{d}/x".encode(), AT_SYMLINK_FOLLOW))
    return Opened(fd)


def outcome(call, *args):
    """Its value, or the name of its error."""
    try:
        return call(*args)
    except OSError as e:
        return errno.errorcode[e.errno]
