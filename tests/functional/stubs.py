# SPDX-License-Identifier: Apache-2.0
"""What has to happen before gRPC is imported: an own mount namespace, and client code made from our protocol files."""

import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile

PROTO = pathlib.Path(__file__).resolve().parent.parent.parent / "proto"
CLONE_NEWNS = 0x00020000
SYS_PIVOT_ROOT = 155  # x86-64
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 1 << 18, 2
# gRPC's own fork handlers wait for its thread pool to be idle, which it may never be
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


def own_mount_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS): run this as root")
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        _make_the_root_a_mount(libc)
    # crun before 1.9 refuses a machine that shows both cgroup versions; our view of it may show one
    libc.umount2(b"/sys/fs/cgroup/unified", MNT_DETACH)


def _make_the_root_a_mount(libc):
    """In a bare chroot "/" is a directory on somebody else's mount, which can't be made private and which runc refuses: walk out
    of it, bind it onto itself, and make it the root of our mount namespace."""
    here, inside = os.getcwd(), os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.chroot("/tmp")
    os.fchdir(inside)
    while not os.path.samefile("..", "."):
        os.chdir("..")
    os.chroot(".")
    os.fchdir(inside)
    path = os.getcwd().encode()
    for call, arguments in (
            (libc.mount, (b"none", b"/", None, MS_REC | MS_PRIVATE, None)),
            (libc.mount, (path, path, None, MS_BIND | MS_REC, None)),
            (libc.chdir, (path,)),
            (libc.syscall, (SYS_PIVOT_ROOT, b".", b".")),
            (libc.umount2, (b".", MNT_DETACH))):
        if call(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"{call.__name__}{arguments}")
    os.close(inside)
    os.chdir(here)


def generate():
    """Python client code of proto/*.proto, in a new directory on sys.path."""
    out = tempfile.mkdtemp(prefix="holdfast-stubs-")
    names = sorted(p.name for p in PROTO.glob("*.proto"))
    subprocess.run(["/usr/bin/python3", "-m", "grpc_tools.protoc", f"-I{PROTO}", "-I/usr/include",
                    f"--python_out={out}", f"--grpc_python_out={out}", *names],
                   check=True, cwd=PROTO, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    sys.path.insert(0, out)
    return out
