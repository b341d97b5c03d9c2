# SPDX-License-Identifier: Apache-2.0
"""POSIX cases whose outcome on a volume has to equal the outcome on a plain directory.

    posix_cases.py DIRECTORY          run every case below DIRECTORY, print {case: outcome} as JSON

No outcome is written down here: the plain directory is the reference. A case is a function of an empty directory; it runs in a
process of its own, returns anything that JSON can hold, and an OSError it does not catch is its outcome too.
"""

import ctypes
import errno
import fcntl
import itertools
import json
import mmap
import os
import socket
import stat
import struct
import sys

OWNER, MEMBER, OTHER = 2001, 2002, 2003  # uids; MEMBER has OWNER's group as a supplementary one
GROUP, OTHER_GROUP = 3001, 3002
USERS = {
    "root": (0, 0, []),
    "owner": (OWNER, GROUP, []),
    "member": (MEMBER, OTHER_GROUP, [GROUP]),
    "other": (OTHER, OTHER_GROUP, []),
}
TYPES = ("file", "dir", "symlink", "dangling", "fifo", "socket", "missing")
CASES = {}
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
libc = ctypes.CDLL(None, use_errno=True)


def link_open(fd, name):
    """Give a nameless file a name; os.link() would link the symbolic link in /proc."""
    if libc.linkat(AT_FDCWD, f"/proc/self/fd/{fd}".encode(), AT_FDCWD, name.encode(), AT_SYMLINK_FOLLOW):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


def case(*parameters):
    """Register a function once for each combination of its parameters."""
    def register(function):
        for values in itertools.product(*parameters):
            CASES[f"{function.__name__}({', '.join(map(str, values))})"] = (function, values)
        return function
    return register


def become(user):
    uid, gid, groups = USERS[user]
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def outcome(call, *args, **kw):
    """What a system call did: its value, or the name of its error."""
    try:
        value = call(*args, **kw)
    except OSError as e:
        return errno.errorcode[e.errno]
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if value is None or isinstance(value, (int, str, list)) else type(value).__name__


def make(kind, name, uid=OWNER, gid=GROUP, mode=None):
    if kind == "file":
        with open(name, "w") as f:
            f.write("content")
    elif kind == "dir":
        os.mkdir(name)
    elif kind == "symlink":
        if not os.path.exists("pointee"):
            make("file", "pointee")
        os.symlink("pointee", name)
    elif kind == "dangling":
        os.symlink("nowhere", name)
    elif kind == "fifo":
        os.mkfifo(name)
    elif kind == "socket":
        s = socket.socket(socket.AF_UNIX)
        s.bind(name)
        s.close()
    if kind != "missing":
        os.lchown(name, uid, gid)
        if mode is not None and kind not in ("symlink", "dangling"):
            os.chmod(name, mode)


def show(name):
    """The part of a stat that does not depend on where the file lies."""
    try:
        st = os.lstat(name)
    except OSError as e:
        return errno.errorcode[e.errno]
    size = st.st_size if not stat.S_ISDIR(st.st_mode) else None
    links = st.st_nlink if not stat.S_ISDIR(st.st_mode) else None
    return [oct(st.st_mode), links, st.st_uid, st.st_gid, size]


def show_all():
    return {name: show(name) for name in sorted(os.listdir("."))}


# names


@case(TYPES, TYPES, (0, 1, 2), ("root", "other"))  # flags: plain, NOREPLACE, EXCHANGE
def rename(kind_from, kind_to, flags, user):
    import ctypes
    make(kind_from, "a")
    make(kind_to, "b")
    os.chmod(".", 0o777)
    become(user)
    libc = ctypes.CDLL(None, use_errno=True)
    r = libc.renameat2(-100, b"a", -100, b"b", flags)
    return [r and errno.errorcode[ctypes.get_errno()], show("a"), show("b")]


@case(("plain", "nonempty", "into-itself", "same", "hardlink"))
def rename_directories(how):
    os.makedirs("a/x")
    os.mkdir("b")
    if how == "nonempty":
        os.mkdir("b/y")
    if how == "hardlink":
        make("file", "f")
        os.link("f", "g")
        return [outcome(os.rename, "f", "g"), show_all()]
    to = {"into-itself": "a/x/b", "same": "a"}.get(how, "b")
    return [outcome(os.rename, "a", to), show_all(), show("b/x")]


@case(TYPES, ("unlink", "rmdir", "mkdir", "mkfifo", "symlink-over", "link-to", "readlink", "open", "create-excl", "truncate"),
      tuple(USERS), (0o777, 0o755, 0o1777, 0o2777, 0o700))
def name_operations(kind, operation, user, mode):
    make(kind, "x")
    os.chown(".", OWNER, GROUP)
    os.chmod(".", mode)
    become(user)
    calls = {
        "unlink": lambda: os.unlink("x"),
        "rmdir": lambda: os.rmdir("x"),
        "mkdir": lambda: os.mkdir("x"),
        "mkfifo": lambda: os.mkfifo("x"),
        "symlink-over": lambda: os.symlink("y", "x"),
        "link-to": lambda: os.link("x", "y", follow_symlinks=False),
        "readlink": lambda: os.readlink("x"),
        "open": lambda: os.close(os.open("x", os.O_RDWR | os.O_NONBLOCK)),
        "create-excl": lambda: os.close(os.open("x", os.O_RDWR | os.O_CREAT | os.O_EXCL)),
        "truncate": lambda: os.truncate("x", 3),
    }
    result = outcome(calls[operation])
    return [result, show("x"), show("y")]


@case(("255", "256", "path-4095", "component-file", "dot", "dotdot", "loop", "trailing-slash", "utf8", "newline"))
def odd_names(how):
    if how in ("255", "256"):
        return [outcome(os.mkdir, "n" * int(how)), len(os.listdir("."))]
    if how == "path-4095":
        return outcome(os.mkdir, "/".join(["n"] * 2048))
    if how == "component-file":
        make("file", "f")
        return [outcome(os.stat, "f/x"), outcome(os.mkdir, "f/x"), outcome(os.open, "f/", os.O_RDONLY)]
    if how == "loop":
        os.symlink("b", "a")
        os.symlink("a", "b")
        return [outcome(os.stat, "a"), outcome(os.open, "a", os.O_RDONLY)]
    if how == "trailing-slash":
        return [outcome(os.mkdir, "d/"), outcome(os.open, "f/", os.O_CREAT | os.O_RDWR), outcome(os.rmdir, "d/")]
    if how in ("dot", "dotdot"):
        os.mkdir("d")
        name = "d/." if how == "dot" else "d/.."
        return [outcome(os.rmdir, name), outcome(os.mkdir, name), outcome(os.rename, name, "e")]
    name = {"utf8": "h\u00e9\u4e16", "newline": "a\nb\x01"}[how]
    make("file", name)
    return [os.listdir(".") == [name], show(name)]


# creation: owner, group, mode


@case(("file", "dir", "fifo", "socket", "symlink", "tmpfile"), tuple(USERS), (0o777, 0o2777, 0o3777), (0o022, 0o077, 0o000),
      (0o777, 0o2775, 0o4755, 0o644))
def created_as_the_caller(kind, user, parent_mode, umask, mode):
    os.chown(".", OWNER, GROUP)
    os.chmod(".", parent_mode)
    become(user)
    os.umask(umask)
    if kind == "file":
        r = outcome(lambda: os.close(os.open("x", os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)))
    elif kind == "tmpfile":
        def tmpfile():
            fd = os.open(".", os.O_TMPFILE | os.O_WRONLY, mode)
            link_open(fd, "x")
            os.close(fd)
        r = outcome(tmpfile)
    elif kind == "dir":
        r = outcome(os.mkdir, "x", mode)
    elif kind == "fifo":
        r = outcome(os.mkfifo, "x", mode)
    elif kind == "socket":
        r = outcome(lambda: socket.socket(socket.AF_UNIX).bind("x"))
    else:
        r = outcome(os.symlink, "y", "x")
    return [r, show("x")]


@case(("char", "block", "file"), tuple(USERS))
def mknod(kind, user):
    os.chmod(".", 0o777)
    become(user)
    types = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "file": stat.S_IFREG}
    r = outcome(os.mknod, "x", types[kind] | 0o640, os.makedev(1, 3))
    return [r, show("x"), os.lstat("x").st_rdev if r is None else None]


# ownership and modes


@case(tuple(USERS), ("file", "dir"), (0o644, 0o4755, 0o2755, 0o6755, 0o1777, 0o0, 0o7777))
def chmod(user, kind, mode):
    make(kind, "x")
    become(user)
    return [outcome(os.chmod, "x", mode), show("x")]


@case(tuple(USERS), (-1, OWNER, OTHER), (-1, GROUP, OTHER_GROUP), (0o644, 0o6755, 0o6644), ("file", "dir"))
def chown(user, uid, gid, mode, kind):
    make(kind, "x", mode=mode)
    become(user)
    return [outcome(os.chown, "x", uid, gid), show("x")]


@case(tuple(USERS), ("write", "truncate", "ftruncate", "open-trunc", "fallocate", "append", "mmap", "copy_file_range"),
      (0o4777, 0o2777, 0o6777, 0o2767, 0o777))
def suid_goes_when_written(user, how, mode):
    make("file", "x", mode=mode)
    make("file", "other", mode=0o777)
    become(user)

    def act():
        if how == "truncate":
            return os.truncate("x", 2)
        flags = {"open-trunc": os.O_WRONLY | os.O_TRUNC, "append": os.O_WRONLY | os.O_APPEND, "mmap": os.O_RDWR}
        fd = os.open("x", flags.get(how, os.O_WRONLY))
        if how in ("write", "append"):
            os.write(fd, b"new")
        elif how == "ftruncate":
            os.ftruncate(fd, 2)
        elif how == "fallocate":
            os.posix_fallocate(fd, 0, 5000)
        elif how == "copy_file_range":
            source = os.open("other", os.O_RDONLY)
            os.copy_file_range(source, fd, 7)
        os.close(fd)
    return [outcome(act), show("x")]


@case(("file",), ("write", "truncate", "chown", "chmod"))
def capability_goes_when_written(kind, how):
    make(kind, "x", mode=0o777)
    cap = struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)
    set_ = outcome(os.setxattr, "x", "security.capability", cap)
    {"write": lambda: open("x", "r+").write("n"), "truncate": lambda: os.truncate("x", 1),
     "chown": lambda: os.chown("x", OTHER, -1), "chmod": lambda: os.chmod("x", 0o700)}[how]()
    return [set_, outcome(os.getxattr, "x", "security.capability"), show("x")]


@case(tuple(USERS), (0o000, 0o400, 0o200, 0o100, 0o040, 0o004, 0o060, 0o006, 0o777))
def permission(user, mode):
    make("file", "f", mode=mode)
    make("dir", "d", mode=mode)
    become(user)
    return [outcome(os.access, "f", m) for m in (os.R_OK, os.W_OK, os.X_OK)] + [
        outcome(lambda: os.close(os.open("f", flag))) for flag in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)] + [
        outcome(lambda: sorted(os.listdir("d"))), outcome(os.mkdir, "d/x"), outcome(os.stat, "d/x"),
        outcome(os.execv, "f", ["f"])]


@case(tuple(USERS), ("now", "set", "omit"))
def utimens(user, how):
    make("file", "x", mode=0o666)
    become(user)
    before = os.stat("x")
    if how == "now":
        r = outcome(os.utime, "x")
    else:
        r = outcome(os.utime, "x", ns=(1_000_000_001, 2_000_000_002))
    st = os.stat("x")
    changed = st.st_mtime_ns != before.st_mtime_ns
    return [r, changed, (st.st_atime_ns, st.st_mtime_ns) == (1_000_000_001, 2_000_000_002)]


@case(("write", "truncate", "chmod", "link", "rename", "unlink", "mkdir", "setxattr", "read"))
def times_move(how):
    """Which of ctime, mtime of a file and its directory an operation moves."""
    import time
    os.mkdir("d")
    make("file", "d/x", uid=0, gid=0)
    os.link("d/x", "keep")

    def times():
        f, d = os.stat("keep"), os.stat("d")
        return f.st_mtime_ns, f.st_ctime_ns, d.st_mtime_ns, d.st_ctime_ns
    before = times()
    time.sleep(0.05)
    {"write": lambda: open("d/x", "a").write("y"), "truncate": lambda: os.truncate("d/x", 1),
     "chmod": lambda: os.chmod("d/x", 0o600), "link": lambda: os.link("d/x", "d/y"),
     "rename": lambda: os.rename("d/x", "d/y"), "unlink": lambda: os.unlink("d/x"), "mkdir": lambda: os.mkdir("d/z"),
     "setxattr": lambda: os.setxattr("d/x", "user.a", b"b"), "read": lambda: open("d/x").read()}[how]()
    return [a != b for a, b in zip(before, times())]


# extended attributes and ACLs


@case(("file", "dir", "symlink", "fifo"), ("user.a", "trusted.a", "security.a", "bogus.a", "user."), tuple(USERS))
def xattr(kind, name, user):
    make(kind, "x", mode=0o666 if kind != "dir" else 0o777)
    become(user)
    kw = {"follow_symlinks": False}
    return [outcome(os.setxattr, "x", name, b"value", **kw), outcome(os.getxattr, "x", name, **kw),
            outcome(os.setxattr, "x", name, b"w", os.XATTR_CREATE, **kw),
            outcome(os.setxattr, "x", "user.none", b"w", os.XATTR_REPLACE, **kw),
            outcome(lambda: [n for n in os.listxattr("x", **kw) if n != "security.selinux"]),
            outcome(os.removexattr, "x", name, **kw), outcome(os.removexattr, "x", name, **kw)]


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


ACL = acl((1, 6, 0xffffffff), (2, 7, OTHER), (4, 4, 0xffffffff), (16, 7, 0xffffffff), (32, 0, 0xffffffff))


@case(("access", "default"), tuple(USERS), ("file", "dir"))
def posix_acl(which, user, kind):
    make(kind, "x", mode=0o640 if kind == "file" else 0o750)
    name = f"system.posix_acl_{which}"
    set_ = outcome(os.setxattr, "x", name, ACL)
    shown = show("x")
    become(user)
    inside = outcome(os.mkdir, "x/sub") if kind == "dir" else outcome(lambda: os.close(os.open("x", os.O_RDWR)))
    return [set_, shown, inside, outcome(os.getxattr, "x", name), outcome(os.getxattr, "x/sub", name), show("x/sub"),
            outcome(os.chmod, "x", 0o600), show("x"), outcome(os.setxattr, "x", name, ACL)]


@case((0o022, 0o077), (0o666, 0o640))
def default_acl_replaces_umask(umask, mode):
    os.setxattr(".", "system.posix_acl_default", ACL)
    os.umask(umask)
    os.close(os.open("x", os.O_CREAT | os.O_WRONLY, mode))
    os.mkdir("d", mode)
    return [show("x"), show("d"), outcome(os.getxattr, "x", "system.posix_acl_access"),
            outcome(os.getxattr, "d", "system.posix_acl_default")]


# data


@case(("append", "excl", "trunc", "directory", "nofollow", "dsync", "direct", "path", "wronly-read", "rdonly-write"))
def open_flags(how):
    make("file", "f")
    os.symlink("f", "l")
    if how == "append":
        fd = os.open("f", os.O_RDWR | os.O_APPEND)
        return [os.write(fd, b"more"), os.pwrite(fd, b"XX", 0), os.lseek(fd, 0, 1), open("f").read()]
    if how == "excl":
        return [outcome(os.open, "f", os.O_CREAT | os.O_EXCL), outcome(os.open, "l", os.O_CREAT | os.O_EXCL)]
    if how == "trunc":
        os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
        return show("f")
    if how == "directory":
        return [outcome(os.open, "f", os.O_DIRECTORY), outcome(os.open, ".", os.O_RDWR), outcome(os.open, ".", os.O_CREAT)]
    if how == "nofollow":
        return outcome(os.open, "l", os.O_NOFOLLOW)
    if how == "dsync":
        fd = os.open("f", os.O_RDWR | os.O_DSYNC)
        return [os.write(fd, b"12"), outcome(os.fsync, fd), outcome(os.fdatasync, fd)]
    if how == "direct":
        fd = os.open("f", os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, 8192)
        return [os.writev(fd, [buffer]), os.preadv(fd, [buffer], 4096), show("f")]
    if how == "path":
        fd = os.open("f", os.O_PATH)
        return [outcome(os.read, fd, 1), os.fstat(fd).st_size]
    if how == "wronly-read":
        return outcome(os.read, os.open("f", os.O_WRONLY), 1)
    return outcome(os.write, os.open("f", os.O_RDONLY), b"x")


@case(("hole", "data", "end", "beyond", "negative"))
def seek(how):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"x" * 4096, 1 << 20)
    os.ftruncate(fd, 3 << 20)
    calls = {"hole": (0, os.SEEK_HOLE), "data": (0, os.SEEK_DATA), "end": (0, os.SEEK_END), "beyond": (4 << 20, os.SEEK_DATA),
             "negative": (-1, os.SEEK_SET)}
    return [outcome(os.lseek, fd, *calls[how]), outcome(os.lseek, fd, 1 << 20, os.SEEK_HOLE)]


FALLOC_KEEP, FALLOC_PUNCH, FALLOC_COLLAPSE, FALLOC_ZERO, FALLOC_INSERT = 1, 2, 8, 16, 32


@case((0, FALLOC_KEEP, FALLOC_KEEP | FALLOC_PUNCH, FALLOC_ZERO, FALLOC_PUNCH))
def fallocate(mode):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"y" * 10000)
    r = libc.fallocate(fd, mode, 4096, 20000)
    return [r and errno.errorcode[ctypes.get_errno()], os.fstat(fd).st_size, os.pread(fd, 30000, 0).count(b"y")]


@case(("shared", "private", "beyond-end"))
def memory_map(how):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 8192)
    m = mmap.mmap(fd, 8192, flags=mmap.MAP_PRIVATE if how == "private" else mmap.MAP_SHARED)
    m[0:5] = b"hello"
    m.flush()
    os.pwrite(fd, b"WORLD", 4096)
    return [os.pread(fd, 5, 0).decode("latin-1"), m[4096:4101].decode("latin-1")]


@case(("unlinked", "renamed", "overwritten"))
def an_open_file_lives_on(how):
    make("file", "f")
    make("file", "g")
    fd = os.open("f", os.O_RDWR)
    {"unlinked": lambda: os.unlink("f"), "renamed": lambda: os.rename("f", "h"),
     "overwritten": lambda: os.rename("g", "f")}[how]()
    os.write(fd, b"NEW")
    os.lseek(fd, 0, 0)
    st = os.fstat(fd)
    return [os.read(fd, 100).decode(), st.st_nlink, st.st_size, outcome(os.fchmod, fd, 0o600), outcome(os.ftruncate, fd, 1),
            os.fstat(fd).st_size, show_all()]


@case(("flock", "posix", "ofd"), ("shared", "exclusive"))
def locks(kind, first):
    make("file", "f")

    def lock(fd, operation):
        if kind == "flock":
            return fcntl.flock(fd, (fcntl.LOCK_SH if operation == "shared" else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        command = fcntl.F_SETLK if kind == "posix" else 37
        kind_ = fcntl.F_RDLCK if operation == "shared" else fcntl.F_WRLCK
        fcntl.fcntl(fd, command, struct.pack("hhqqi", kind_, 0, 0, 10, 0))
        return None
    a = os.open("f", os.O_RDWR)
    results = [outcome(lock, a, first)]
    read, write = os.pipe()
    if os.fork() == 0:
        b = os.open("f", os.O_RDWR)
        os.write(write, json.dumps([outcome(lock, b, "shared"), outcome(lock, b, "exclusive")]).encode())
        os._exit(0)
    os.wait()
    results.append(json.loads(os.read(read, 1000)))
    os.close(a)
    c = os.open("f", os.O_RDWR)
    return results + [outcome(lock, c, "exclusive")]


@case(("file", "dir", "fifo"))
def directory_listing(kind):
    for i in range(300):
        make(kind, f"n{i:03}")
    with os.scandir(".") as entries:
        listed = sorted((e.name, e.is_dir(), e.is_file(), e.inode() == os.lstat(e.name).st_ino) for e in entries)
    for i in range(0, 300, 2):
        (os.rmdir if kind == "dir" else os.unlink)(f"n{i:03}")
    return [listed, len(os.listdir(".")), os.stat(".").st_nlink]


@case(("many", "across"))
def hard_links(how):
    make("file", "f")
    os.mkdir("d")
    for i in range(20):
        os.link("f", f"d/l{i}")
    inodes = {os.stat(f"d/l{i}").st_ino for i in range(20)} | {os.stat("f").st_ino}
    open("d/l3", "w").write("changed")
    return [len(inodes), show("f"), open("f").read(), outcome(os.link, "d", "e"), outcome(os.link, "missing", "e")]


@case(("fs", "immutable"))
def ioctls(how):
    make("file", "f")
    fd = os.open("f", os.O_RDONLY)
    if how == "fs":
        return outcome(fcntl.ioctl, fd, 0x1234, b"\0" * 8)
    return outcome(os.fsync, os.open(".", os.O_RDONLY))


def run_one(function, values):
    """In a child with its own directory as the current one."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            result = {"value": function(*values)}
        except OSError as e:
            result = {"error": errno.errorcode[e.errno]}
        except Exception as e:  # a broken case is an outcome that no directory may share
            result = {"exception": f"{type(e).__name__}: {e}"}
        with os.fdopen(write, "w") as out:
            out.write(json.dumps(result))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as source:
        text = source.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else {"exception": "died"}


def main():
    os.umask(0o022)
    top = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
    results = {}
    for i, (name, (function, values)) in enumerate(CASES.items()):
        directory = f"c{i}"
        os.fchdir(top)
        try:
            os.mkdir(directory)
            os.chdir(directory)
        except OSError as e:
            results[name] = {"directory of the case": errno.errorcode[e.errno]}
            continue
        results[name] = run_one(function, values)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
