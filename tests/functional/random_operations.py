# SPDX-License-Identifier: Apache-2.0
"""Random operations on a volume and on a plain directory at the same time; every result and the final trees have to be equal.

    random_operations.py file VOLUME PLAIN SEED COUNT      on one file, as fsx does: reads, writes, truncations, holes, maps
    random_operations.py tree VOLUME PLAIN SEED COUNT      on a tree of names, as fsstress does

Exits 1 with the operation that differed. A volume that is killed below the run has to make no difference.

run_file() and run_tree() may be called from elsewhere too: they raise Different, and tell `doing` of each operation first.
"""

import ctypes
import errno
import mmap
import os
import random
import stat
import sys

SIZE = 1 << 20
AT_SYMLINK_FOLLOW = 0x400
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


class Different(Exception):
    """An operation did not do the same on the volume and on the plain directory."""


def outcome(call):
    try:
        return call()
    except OSError as e:
        return errno.errorcode[e.errno]


class File:
    """One open file that is read and changed in every way there is."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "fsx")
        self.fd = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o644)

    def read(self, offset, length, data):
        return os.pread(self.fd, length, offset)

    def write(self, offset, length, data):
        return os.pwrite(self.fd, data[:length], offset)

    def truncate(self, offset, length, data):
        return os.ftruncate(self.fd, offset)

    def truncate_by_path(self, offset, length, data):
        return os.truncate(self.path, offset)

    def fallocate(self, mode, offset, length):
        return libc.fallocate(self.fd, mode, offset, max(length, 1)) and errno.errorcode[ctypes.get_errno()]

    def allocate(self, offset, length, data):
        return self.fallocate(0, offset, length)

    def punch_hole(self, offset, length, data):
        return self.fallocate(3, offset, length)

    def zero_range(self, offset, length, data):
        return self.fallocate(16, offset, length)

    def map_read(self, offset, length, data):
        size = os.fstat(self.fd).st_size
        if size == 0:
            return None
        with mmap.mmap(self.fd, size, prot=mmap.PROT_READ) as m:
            return m[offset % size:offset % size + length]

    def map_write(self, offset, length, data):
        size = os.fstat(self.fd).st_size
        if size == 0:
            return None
        with mmap.mmap(self.fd, size) as m:
            start = offset % size
            end = min(size, start + length)
            m[start:end] = data[:end - start]
            return m.flush()

    def copy_range(self, offset, length, data):
        size = os.fstat(self.fd).st_size
        source = offset // 2
        if source + length > size or source + length > offset:
            return None
        return os.copy_file_range(self.fd, self.fd, length, source, offset)

    def append(self, offset, length, data):
        if os.fstat(self.fd).st_size > SIZE:
            return None
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            return os.write(fd, data[:length])
        finally:
            os.close(fd)

    def reopen(self, offset, length, data):
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)

    def sync(self, offset, length, data):
        return os.fsync(self.fd)

    def size(self, offset, length, data):
        return os.fstat(self.fd).st_size

    def seek(self, offset, length, data):
        return outcome(lambda: os.lseek(self.fd, offset, os.SEEK_END)) and None


FILE_OPERATIONS = [name for name in vars(File) if not name.startswith("_") and name != "fallocate"]


def read_all(path):
    with open(path, "rb") as f:
        return f.read()


def run_file(volume, plain, rng, count, doing=lambda what: None):
    files = [File(volume), File(plain)]
    for i in range(count):
        operation = rng.choice(FILE_OPERATIONS)
        arguments = rng.randrange(SIZE), rng.randrange(1, 65536), rng.randbytes(65536)
        doing(f"{operation}({arguments[0]}, {arguments[1]})")
        results = [outcome(lambda f=f: getattr(f, operation)(*arguments)) for f in files]
        if results[0] != results[1]:
            fail(i, f"{operation}({arguments[0]}, {arguments[1]})", *results)
        if i % 200 == 0 or i == count - 1:
            contents = [read_all(f.path) for f in files]
            if contents[0] != contents[1]:
                first = next((n for n, (a, b) in enumerate(zip(*contents)) if a != b), "length")
                fail(i, f"content after {operation}{arguments[:2]}", len(contents[0]), f"{len(contents[1])}, at {first}")
    for file in files:
        os.close(file.fd)


class Tree:
    """A tree of names, changed by path."""

    def __init__(self, top):
        self.top = top
        self.held = None

    def at(self, name):
        return os.path.join(self.top, name)

    def create(self, a, b, n, data):
        fd = os.open(self.at(a), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 | n % 0o100)
        try:
            return os.write(fd, data)
        finally:
            os.close(fd)

    def create_or_truncate(self, a, b, n, data):
        fd = os.open(self.at(a), os.O_CREAT | (os.O_TRUNC if n % 2 else 0) | os.O_RDWR, 0o600 | n % 0o100)
        try:
            return os.write(fd, data), os.fstat(fd).st_size
        finally:
            os.close(fd)

    def create_unnamed(self, a, b, n, data):
        """A file without a name, which then gets one."""
        fd = os.open(self.at(os.path.dirname(a)), os.O_TMPFILE | os.O_RDWR, 0o640)
        try:
            before = os.write(fd, data), os.fstat(fd).st_nlink
            named = libc.linkat(-100, f"/proc/self/fd/{fd}".encode(), -100, self.at(a).encode(), AT_SYMLINK_FOLLOW)
            return before, named and errno.errorcode[ctypes.get_errno()], os.fstat(fd).st_nlink
        finally:
            os.close(fd)

    def hold(self, a, b, n, data):
        """Opens a file that write_held goes on with, whatever becomes of its name."""
        fd = os.open(self.at(a), os.O_RDWR)
        self.let_go()
        self.held = fd

    def write_held(self, a, b, n, data):
        if self.held is None:
            return None
        st = os.fstat(self.held)
        return (st.st_nlink, st.st_size, os.pwrite(self.held, data, n), os.pread(self.held, 100, n // 2),
                os.fsync(self.held))

    def let_go(self):
        if self.held is not None:
            os.close(self.held)
        self.held = None

    def write(self, a, b, n, data):
        fd = os.open(self.at(a), os.O_WRONLY)
        try:
            return os.pwrite(fd, data, n)
        finally:
            os.close(fd)

    def append(self, a, b, n, data):
        fd = os.open(self.at(a), os.O_WRONLY | os.O_APPEND)
        try:
            return os.write(fd, data)
        finally:
            os.close(fd)

    def read(self, a, b, n, data):
        with open(self.at(a), "rb") as f:
            return f.read()

    def mkdir(self, a, b, n, data):
        return os.mkdir(self.at(a), 0o700 | n % 0o100)

    def unlink(self, a, b, n, data):
        return os.unlink(self.at(a))

    def rmdir(self, a, b, n, data):
        return os.rmdir(self.at(a))

    def rename(self, a, b, n, data):
        return os.rename(self.at(a), self.at(b))

    def rename_flags(self, a, b, n, data):
        r = libc.renameat2(-100, self.at(a).encode(), -100, self.at(b).encode(), 1 + n % 2)
        return r and errno.errorcode[ctypes.get_errno()]

    def link(self, a, b, n, data):
        return os.link(self.at(a), self.at(b), follow_symlinks=False)

    def symlink(self, a, b, n, data):
        return os.symlink(b, self.at(a))

    def readlink(self, a, b, n, data):
        return os.readlink(self.at(a))

    def truncate(self, a, b, n, data):
        return os.truncate(self.at(a), n)

    def chmod(self, a, b, n, data):
        return os.chmod(self.at(a), 0o600 | n % 0o200)

    def chown(self, a, b, n, data):
        return os.lchown(self.at(a), n % 5, n % 7)

    def set_times(self, a, b, n, data):
        return os.utime(self.at(a), ns=(n * 10**9, n * 10**9 + n))

    def setxattr(self, a, b, n, data):
        return os.setxattr(self.at(a), f"user.x{n % 3}", data[:100], n % 3)

    def removexattr(self, a, b, n, data):
        return os.removexattr(self.at(a), f"user.x{n % 3}")

    def getxattr(self, a, b, n, data):
        return os.getxattr(self.at(a), f"user.x{n % 3}")

    def listxattr(self, a, b, n, data):
        return sorted(name for name in os.listxattr(self.at(a)) if name.startswith("user."))

    def list(self, a, b, n, data):
        return sorted(os.listdir(self.at(a)))

    def stat(self, a, b, n, data):
        return describe(self.at(a), False)

    def mknod(self, a, b, n, data):
        return os.mknod(self.at(a), stat.S_IFSOCK | 0o640)  # no fifo: opening one waits


TREE_OPERATIONS = [name for name in vars(Tree) if not name.startswith("_") and name not in ("at", "let_go")]


def describe(path, content=True):
    st = os.lstat(path)
    is_dir = stat.S_ISDIR(st.st_mode)
    facts = [st.st_mode, None if is_dir else st.st_nlink, st.st_uid, st.st_gid, None if is_dir else st.st_size]
    if content:
        facts.append(sorted((n, os.getxattr(path, n, follow_symlinks=False))
                            for n in os.listxattr(path, follow_symlinks=False) if n.startswith("user.")))
        if stat.S_ISREG(st.st_mode):
            with open(path, "rb") as f:
                facts.append(f.read())
        elif stat.S_ISLNK(st.st_mode):
            facts.append(os.readlink(path))
    return facts


def walk(top):
    found = {}
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, top)] = describe(path)
    return found


def random_name(rng):
    return "/".join(f"n{rng.randrange(6)}" for _ in range(rng.choice((1, 1, 2, 2, 3))))


def run_tree(volume, plain, rng, count, doing=lambda what: None):
    trees = [Tree(volume), Tree(plain)]
    for i in range(count):
        operation = rng.choice(TREE_OPERATIONS)
        arguments = random_name(rng), random_name(rng), rng.randrange(20000), rng.randbytes(rng.randrange(5000))
        doing(f"{operation}{arguments[:3]}")
        results = [outcome(lambda t=t: getattr(t, operation)(*arguments)) for t in trees]
        if results[0] != results[1]:
            fail(i, f"{operation}{arguments[:3]}", *results)
    for t in trees:
        t.let_go()
    doing("comparison of the final trees")
    found = [walk(t.top) for t in trees]
    if found[0] != found[1]:
        names = [n for n in set(found[0]) | set(found[1]) if found[0].get(n) != found[1].get(n)]
        fail(count, f"final trees, {names[:5]}", found[0].get(names[0]), found[1].get(names[0]))


def fail(i, what, on_volume, on_plain):
    raise Different(f"operation {i}: {what}: on the volume {str(on_volume)[:300]}, "
                    f"on the plain directory {str(on_plain)[:300]}")


def main():
    kind, volume, plain, seed, count = sys.argv[1:]
    os.umask(0o022)
    try:
        {"file": run_file, "tree": run_tree}[kind](volume, plain, random.Random(int(seed)), int(count))
    except Different as e:
        print(e)
        sys.exit(1)


if __name__ == "__main__":
    main()
