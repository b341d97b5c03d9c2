# SPDX-License-Identifier: Apache-2.0
"""Workloads that are programs everybody knows: git, a C build, SQLite, tar."""

import os
import shutil
import sqlite3
import stat


GIT_ENV = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0",
           **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
              for what, value in (("NAME", "storm"), ("EMAIL", "storm@localhost"), ("DATE", "2024-01-01T00:00:00Z"))}}
SOURCES = 24


def once(run, name, make):
    """Something on plain disk that all rounds share, made by the first."""
    path = os.path.join(run.scratch, f"{run.name}-{name}")
    if not os.path.exists(path):
        make(path)
    return path


def put(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(content)


# git


def make_repository(run, bare):
    work = bare + ".work"
    run.command("git", "init", "-q", "-b", "main", work, env=GIT_ENV)
    for commit in range(5):
        for i in range(25):
            put(os.path.join(work, f"d{i % 5}", f"f{i}"), b"%d %d\n" % (commit, i) * (i * 20 + 1))
        run.command("git", "-C", work, "add", "-A", env=GIT_ENV)
        run.command("git", "-C", work, "commit", "-q", "-m", f"commit {commit}", env=GIT_ENV)
    run.command("git", "clone", "-q", "--bare", work, bare, env=GIT_ENV)
    shutil.rmtree(work)


def git(run):
    """Clone, check, commit, check out, pack, check again, push."""
    bare = once(run, "repository", lambda path: make_repository(run, path))
    clone = os.path.join(run.fresh(), "clone")

    def call(*args):
        return run.command("git", "-C", clone, *args, env=GIT_ENV)

    run.command("git", "clone", "-q", f"file://{bare}", clone, env=GIT_ENV)
    call("fsck", "--full", "--strict", "--no-progress")
    run.equal("git status", clone, call("status", "--porcelain"), b"")
    run.write_file(os.path.join(clone, "new"), b"new\n" * 100)
    call("add", "new")
    call("commit", "-q", "-m", "new")
    call("checkout", "-q", "HEAD~3")
    call("checkout", "-q", "main")
    call("gc", "-q")
    call("fsck", "--full", "--strict", "--no-progress")
    run.equal("git status", clone, call("status", "--porcelain"), b"")
    run.equal("git rev-list", clone, call("rev-list", "--count", "HEAD").strip(), b"6")
    call("push", "-q", bare, f"HEAD:refs/heads/round-{run.number}")
    run.remove(os.path.dirname(clone))


# a build


def build(run):
    """make -j2 of a small program, which has to run and to know all its parts; then an incremental build."""
    d = run.fresh()
    for i in range(SOURCES):
        run.write_file(os.path.join(d, f"part{i}.c"),
                       b'#include "part.h"\nint part%d(void) { return %d * FACTOR; }\n' % (i, i))
    calls = " + ".join(f"part{i}()" for i in range(SOURCES))
    declared = b"".join(b"int part%d(void);\n" % i for i in range(SOURCES))
    run.write_file(os.path.join(d, "part.h"), b"#define FACTOR 3\n" + declared)
    run.write_file(os.path.join(d, "main.c"), f'#include <stdio.h>\n#include "part.h"\nint main(void) '
                                              f'{{ printf("%d\\n", {calls}); return 0; }}\n'.encode())
    run.write_file(os.path.join(d, "Makefile"), b"PARTS := $(patsubst %.c,%.o,$(wildcard *.c))\n"
                                                b"program: $(PARTS)\n\tgcc -o $@ $^\n"
                                                b"%.o: %.c part.h\n\tgcc -O0 -pipe -c -o $@ $<\n")
    run.command("make", "-s", "-j2", "-C", d)
    run.equal("output of the program", d, run.command(f"{d}/program").strip(), b"%d" % (3 * sum(range(SOURCES))))
    run.command("make", "-s", "-q", "-C", d)
    run.write_file(os.path.join(d, "part5.c"), b"int part5(void) { return 1000; }\n", os.O_TRUNC)
    run.command("make", "-s", "-j2", "-C", d)
    expected = b"%d" % (3 * (sum(range(SOURCES)) - 5) + 1000)
    run.equal("output of the program", d, run.command(f"{d}/program").strip(), expected)
    run.remove(d)


# SQLite


def sqlite(run):
    """Two processes that commit to one database: what was committed is there, once, and the file is sound."""
    d = run.fresh()
    path, transactions = os.path.join(d, "database"), 12
    journal = ("delete", "wal", "truncate")[run.number % 3]

    def database():
        connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        connection.execute(f"pragma journal_mode={journal}")
        return connection

    def careful(what, function):
        run.mark(f"sqlite {what} {path}", 90)
        try:
            return function()
        except sqlite3.Error as e:
            return run.report("failed", f"sqlite {what} (journal mode {journal})", path, f"{type(e).__name__}: {e}")

    def writer_of(number):
        def writer():
            db = careful("open", database)
            for i in range(transactions):
                careful("begin", lambda: db.execute("begin immediate"))
                careful("insert", lambda: db.executemany("insert into t values (?, ?, ?)",
                                                         [(number, i, "x" * (j * 50)) for j in range(20)]))
                careful("commit", lambda: db.execute("commit" if i % 4 else "rollback"))
            careful("close", db.close)
        return writer

    db = careful("open", database)
    careful("create table", lambda: db.execute("create table t (writer integer, i integer, text text)"))
    careful("close", db.close)
    run.together(writer_of(0), writer_of(1))
    db = careful("open", database)
    checked = careful("integrity_check", lambda: db.execute("pragma integrity_check").fetchall())
    run.equal("pragma integrity_check", path, checked, [("ok",)])
    rows = dict(careful("select", lambda: db.execute("select writer, count(*) from t group by writer").fetchall()))
    committed = 20 * sum(1 for i in range(transactions) if i % 4)
    run.equal(f"committed rows (journal mode {journal})", path, rows, {0: committed, 1: committed})
    careful("close", db.close)
    run.remove(d)


# tar


def make_tree(path):
    for i in range(80):
        put(os.path.join(path, f"d{i % 8}", f"e{i % 3}", f"f{i}"), (b"%d " % i) * (i * i * 3))
    os.symlink("d1/e1", os.path.join(path, "link"))
    os.link(os.path.join(path, "d0/e0/f0"), os.path.join(path, "hard"))
    os.chmod(os.path.join(path, "d0/e0/f0"), 0o751)
    os.chown(os.path.join(path, "d1"), 1234, 4321)
    for n, (directory, _, files) in enumerate(os.walk(path, topdown=False)):
        for name in files:
            os.utime(os.path.join(directory, name), ns=(n * 10**9, n * 10**9 + 12345), follow_symlinks=False)
        os.utime(directory, ns=(n * 10**9, n * 10**9 + 54321))


def describe(run, top):
    """Everything that an archive keeps, by relative path."""
    found, queue = {}, [""]
    while queue:
        relative = queue.pop()
        path = os.path.join(top, relative)
        st = run("lstat", path)
        is_dir = stat.S_ISDIR(st.st_mode)
        facts = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, 0 if is_dir else (st.st_nlink, st.st_size)]
        if is_dir:
            queue += [os.path.join(relative, name) for name in run("listdir", path)]
        elif stat.S_ISLNK(st.st_mode):
            facts.append(run("readlink", path))
        else:
            facts.append(run.read_file(path))
        found[relative] = facts
    return found


def compare_trees(run, what, top, expected):
    found = describe(run, top)
    for name in sorted(set(found) | set(expected)):
        run.equal(what, os.path.join(top, name), found.get(name), expected.get(name))


def tar(run):
    """An archive made on the volume, unpacked on it, and packed again from there."""
    original = once(run, "tree", make_tree)
    expected = describe(run, original)
    d = run.fresh()
    archive, again, out = (os.path.join(d, name) for name in ("archive", "again", "out"))
    options = ("--format=posix", "--pax-option=delete=atime,delete=ctime", "--sort=name", "--numeric-owner")
    run("mkdir", out)
    run.command("tar", *options, "-C", original, "-cf", archive, ".")
    run.command("tar", *options, "-C", out, "-xpf", archive)
    compare_trees(run, "tar -x", out, expected)
    run.command("tar", *options, "-C", out, "-cf", again, ".")
    back = os.path.join(run.scratch, f"{run.name}-back-{run.number}")
    os.mkdir(back)
    try:
        run.command("tar", *options, "-C", back, "-xpf", again)
        compare_trees(run, "tar -c", back, expected)
    finally:
        shutil.rmtree(back)
    run.remove(d)
