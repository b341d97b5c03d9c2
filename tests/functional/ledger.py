# SPDX-License-Identifier: Apache-2.0
"""What a volume's ledger says (fuse/ledger.h), read as the keeper has it: nodes, open handles, requests in hand."""

import ctypes
import os
import pathlib

from ctypes import c_char, c_int32, c_int64, c_uint32, c_uint64, sizeof

MAGIC, VERSION = 0x5244474C54464C48, 4
MAX_NODES, MAX_HANDLES, MAX_DEVS, MAX_INBOXES = 1 << 24, 1 << 20, 256, 64
MAX_REFS, INBOX_DATA_MAX, NAME_SIZE, PAGE, PART_ALIGN = 2040, 240 << 10, 256, 4096, 65536
LIVE, ROOT = 1, 1


def record(name, fields):
    return type(name, (ctypes.Structure,), {"_fields_": fields})


Config = record("Config", [("id", c_char * 136), ("numbers", c_uint32 * 6), ("timeouts", c_uint64 * 2),
                           ("memory_limit", c_uint64)])
Connection = record("Connection", [("flags", c_uint64 * 2), ("numbers", c_uint32 * 10), ("timeouts", c_uint64 * 2)])
Thread = record("Thread", [("unique", c_uint64), ("since_ns", c_uint64), ("nodeid", c_uint64), ("served", c_uint64),
                           ("opcode", c_uint32), ("deaths", c_uint32), ("tid", c_int32), ("reserved", c_uint32 * 3),
                           ("first_ns", c_uint64)])
Update = record("Update", [("valid", c_uint32), ("node", c_uint32), ("inbox", c_uint32), ("n_refs", c_uint32),
                           ("n_forgotten", c_uint32), ("reserved", c_uint32), ("lookups", c_uint64), ("ref", c_uint64)])
Header = record("Header", [
    ("magic", c_uint64), ("version", c_uint32), ("node_size", c_uint32), ("handle_size", c_uint32),
    ("dev_size", c_uint32), ("inbox_size", c_uint32), ("config", Config), ("connection", Connection),
    ("epoch", c_uint64), ("nodes_used", c_uint32), ("handles_used", c_uint32), ("ended_ns", c_uint64),
    ("end", c_uint32), ("poisoned", c_uint32), ("poison_opcode", c_uint32), ("poison_nodeid", c_uint64),
    ("dev", c_uint64), ("restarts", c_uint64), ("update", Update), ("threads", Thread * MAX_INBOXES)])
Dev = record("Dev", [("state", c_uint32), ("reserved", c_uint32), ("dev", c_uint64), ("mount_id", c_uint64),
                     ("parent", c_uint64), ("name", c_char * NAME_SIZE)])
Node = record("Node", [("state", c_uint32), ("generation", c_uint32), ("lookups", c_uint64), ("ino", c_uint64),
                       ("parent", c_uint64), ("seen", c_uint64), ("dev", c_uint32), ("opens", c_uint32),
                       ("open_mode", c_uint32), ("backing_id", c_int32), ("handle_type", c_int32),
                       ("handle_size", c_uint32), ("handle", c_char * 40)])
Handle = record("Handle", [("state", c_uint32), ("generation", c_uint32), ("node", c_uint64), ("unique", c_uint64),
                           ("flags", c_uint32), ("mode", c_uint32)])
Identity = record("Identity", [("dev", c_uint64), ("ino", c_uint64), ("birth_sec", c_int64), ("birth_nsec", c_uint32),
                               ("mode", c_uint32)])
# without its data, which begins on the next page
Inbox = record("Inbox", [("intent_state", c_uint32), ("result", c_int32), ("before", Identity * 2), ("size", c_uint64),
                         ("n_refs", c_uint32), ("n_forgotten", c_uint32), ("refs", c_uint64 * MAX_REFS)])


def aligned(size, to):
    return (size + to - 1) // to * to


INBOX_DATA = aligned(sizeof(Inbox), PAGE)
INBOX_SIZE = INBOX_DATA + INBOX_DATA_MAX
NODES = aligned(sizeof(Header), PART_ALIGN) + aligned(sizeof(Dev) * MAX_DEVS, PART_ALIGN)
HANDLES = NODES + aligned(sizeof(Node) * MAX_NODES, PART_ALIGN)
INBOXES = HANDLES + aligned(sizeof(Handle) * MAX_HANDLES, PART_ALIGN) + aligned(NAME_SIZE * MAX_NODES, PART_ALIGN)
SIZE = INBOXES + aligned(INBOX_SIZE * MAX_INBOXES, PART_ALIGN)


class Ledger:
    """The ledger of one volume, as long as its keeper lives."""

    def __init__(self, keeper_pid, volume):
        self.fd = None
        for link in sorted(pathlib.Path(f"/proc/{keeper_pid}/fd").iterdir()):
            if "holdfast-ledger" in _target(link):
                self.fd = os.open(link, os.O_RDONLY)
                if self.header().config.id.decode() == volume:
                    break
                self.close()
        assert self.fd is not None, f"no ledger of {volume}"
        header = self.header()
        assert (header.magic, header.version) == (MAGIC, VERSION)
        assert (header.node_size, header.handle_size, header.dev_size, header.inbox_size) == (
            sizeof(Node), sizeof(Handle), sizeof(Dev), INBOX_SIZE), "fuse/ledger.h has another layout than this file"
        assert os.fstat(self.fd).st_size == SIZE

    def close(self):
        os.close(self.fd)
        self.fd = None

    def _read(self, kind, offset, n=1):
        return (kind * n).from_buffer_copy(os.pread(self.fd, sizeof(kind) * n, offset))

    def header(self):
        return self._read(Header, 0)[0]

    def nodes(self):
        """Live nodes by index."""
        records = self._read(Node, NODES, self.header().nodes_used + 1)
        return {i: n for i, n in enumerate(records) if i and n.state == LIVE}

    def handles(self):
        records = self._read(Handle, HANDLES, self.header().handles_used + 1)
        return {i: h for i, h in enumerate(records) if i and h.state == LIVE}

    def inboxes(self):
        """The requests that lie there: index -> length."""
        found = {}
        for i, thread in enumerate(self.header().threads):
            length = self._read(c_uint32, INBOXES + i * INBOX_SIZE + INBOX_DATA)[0] if thread.tid else 0
            if length:
                found[i] = length
        return found

    def inbox(self, index):
        return self._read(Inbox, INBOXES + index * INBOX_SIZE)[0]

    def state(self):
        """What must not depend on how many workers it took: how often the kernel knows and has open what it does."""
        nodes = self.nodes()
        return {"nodes": sorted((n.lookups, n.opens, n.open_mode, n.backing_id > 0)
                                for i, n in nodes.items() if i != ROOT),
                "handles": sorted((h.flags, h.mode) for h in self.handles().values()), "inboxes": self.inboxes(),
                "update": self.header().update.valid}


NOTHING = {"nodes": [], "handles": [], "inboxes": {}, "update": 0}


def _target(link):
    try:
        return os.readlink(link)
    except OSError:
        return ""
