#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""seccomp_exec.py LACK[,LACK...] PROGRAM [ARGUMENT...]: execute a program as on a kernel that lacks something. The filter is kept by
its children."""

import ctypes
import errno
import os
import struct
import sys

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
NR = 0


def argument(n):
    """The offset of its lower half in struct seccomp_data; x86-64."""
    return 16 + 8 * n


# system call; of which argument which value (EQUAL) or bit (ANY_BIT); what then
LACKS = {
    "beneath": [(429, (4, ANY_BIT, 0x200), ERRNO | errno.EINVAL)],  # move_mount, before 6.5
    "namespaces": [(16, (1, EQUAL, 0x8010B70B), ERRNO | errno.ENOTTY),  # ioctl NS_MNT_GET_NEXT and _PREV, before 6.12
                   (16, (1, EQUAL, 0x8010B70C), ERRNO | errno.ENOTTY)],
    "statmount": [(457, None, ERRNO | errno.ENOSYS), (458, None, ERRNO | errno.ENOSYS)],  # before 6.8
    "umount": [(166, None, KILL_PROCESS)],  # it dies there
}


def filter_for(lacks):
    code = []
    for nr, test, action in (rule for lack in lacks for rule in LACKS[lack]):
        code.append((LOAD, 0, 0, NR))
        if test is None:
            code.append((EQUAL, 0, 1, nr))
        else:
            n, kind, value = test
            code.append((EQUAL, 0, 3, nr))
            code.append((LOAD, 0, 0, argument(n)))
            code.append((kind, 0, 1, value))
        code.append((RETURN, 0, 0, action))
    return code + [(RETURN, 0, 0, ALLOW)]


def install(code):
    libc = ctypes.CDLL(None, use_errno=True)
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    header = struct.pack("@HP", len(code), ctypes.addressof(program))
    if libc.prctl(22, 2, header, 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


if __name__ == "__main__":
    install(filter_for(sys.argv[1].split(",")))
    os.execv(sys.argv[2], sys.argv[2:])
