# SPDX-License-Identifier: Apache-2.0
"""What the guest runs on: an ext4 image with files of this machine's packages and the built tree, and an initramfs to get there.

The packages are those that the functional tests use, with all they depend on, file by file as they are installed here: what was
built on this machine meets the libraries that it was built against.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = "holdfast"  # the tree's place in the guest
PACKAGES = ("acl attr busybox-static crun e2fsprogs mount procps python3-grpc-tools python3-grpcio python3-pytest "
            "python3-pytest-xdist python3-yaml runc sqlite3 util-linux").split()
LEFT_OUT = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bash-completion)/|/(boot|dev|proc|run|sys|tmp)(/|$)")
TREE = ("proto", "tests", "deploy")
SETUP = ("etc/passwd", "etc/group", "etc/ld.so.cache", "etc/nsswitch.conf", "etc/alternatives")
MODULES = ("virtio_pci", "virtio_blk", "fuse", "overlay", "loop")
SIZE = "4G"  # sparse


def root_image(directory, build):
    """Make the image; its path."""
    tree, image = directory / "root", directory / "root.ext4"
    shutil.rmtree(tree, ignore_errors=True)
    image.unlink(missing_ok=True)
    for d in ("dev", "proc", "sys", "run", "tmp", "var/tmp", "root", "usr/include", HERE + "/build"):
        (tree / d).mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    for d in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{d}"):
            (tree / d).symlink_to(os.readlink(f"/{d}"))
    programs = [p for p in build.glob("holdfast*") if p.is_file() and os.access(p, os.X_OK)]
    copy(pathlib.Path("/"), tree, installed(PACKAGES) | libraries(programs) | {f for f in SETUP if os.path.lexists(f"/{f}")})
    copy(ROOT, tree / HERE, TREE)
    copy(build, tree / HERE / "build", [p.name for p in programs])
    image.touch()
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, image, SIZE], check=True)
    shutil.rmtree(tree)
    return image


def initramfs(path, kernel, command, environment):
    """busybox and modules; its init goes on in the image with a command."""
    tree = path.with_suffix(".d")
    shutil.rmtree(tree, ignore_errors=True)
    for d in ("bin", "dev", "new", "modules"):
        (tree / d).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin" / "busybox")
    shutil.copy(pathlib.Path(__file__).with_name("init"), tree / "init")
    (tree / "init").chmod(0o755)
    for number, (name, content) in enumerate(kernel.modules(MODULES)):
        (tree / "modules" / f"{number:02}-{name}.ko").write_bytes(content)
    (tree / "command").write_text("".join(f"export {k}={shlex.quote(v)}\n" for k, v in environment.items())
                                  + f"cd /{HERE} && {shlex.join(command)}\n")
    names = "\0".join(str(p.relative_to(tree)) for p in sorted(tree.rglob("*")))
    with open(path, "wb") as out:
        subprocess.run(["cpio", "--quiet", "-0o", "-H", "newc"], cwd=tree, input=names.encode(), stdout=out, check=True)
    shutil.rmtree(tree)
    return path


def copy(source, target, names):
    """Files as they are, owners and links included; directories among the names with all below them."""
    with subprocess.Popen(["tar", "-C", source, "--exclude=__pycache__/*.tmp", "-cf", "-", "--null", "-T", "-"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pack:
        unpack = subprocess.Popen(["tar", "-C", target, "-xpf", "-"], stdin=pack.stdout)
        pack.stdout.close()
        pack.stdin.write("\0".join(sorted(map(str, names))).encode())
        pack.stdin.close()
    if pack.returncode or unpack.wait():
        raise RuntimeError(f"copying from {source} to {target} failed")


def libraries(programs):
    """The shared libraries of programs, links to them included."""
    found = set()
    for path in re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", *programs], check=True, capture_output=True, text=True).stdout):
        found |= {real(path), os.path.realpath(path)}
    return {f.lstrip("/") for f in found}


def real(path):
    """The path with no link among its directories: /lib is a link where dpkg's lists may not know it."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def installed(names):
    """The files of packages, of all they depend on, and of the essential ones; with what no list has: Python's compiled files,
    links to alternatives."""
    files = {str(p).lstrip("/") for d in ("/usr/bin", "/usr/sbin") for p in pathlib.Path(d).iterdir()
             if p.is_symlink() and os.readlink(p).startswith("/etc/alternatives/")}
    for path in map(real, subprocess.run(["dpkg", "-L", *closure(names)], check=True, capture_output=True,
                                         text=True).stdout.splitlines()):
        if path.startswith("/") and not LEFT_OUT.search(path) and os.path.lexists(path) \
                and (os.path.islink(path) or not os.path.isdir(path)):
            files.add(path.lstrip("/"))
            if path.endswith(".py"):
                p = pathlib.Path(path)
                files |= {str(c).lstrip("/") for c in (p.parent / "__pycache__").glob(f"{p.stem}.cpython-*.pyc")}
    return files


def closure(names):
    form = "${binary:Package}\t${Package}\t${db:Status-Status}\t${Essential}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    depends, known, todo = {}, {}, list(names)
    for line in subprocess.run(["dpkg-query", "-W", "-f", form], check=True, capture_output=True,
                               text=True).stdout.splitlines():
        full, name, status, essential, needs, provides = line.split("\t")
        if status == "installed":
            depends[full] = words(needs)
            for alias in [name, *words(provides)]:
                known.setdefault(alias, []).append(full)
            todo += [name] if essential == "yes" else []
    seen = set()
    for name in todo:
        for full in known.get(name, []):
            if full not in seen:
                seen.add(full)
                todo += depends[full]
    return sorted(seen)


def words(relation):
    """The names in a field like "a (>= 1) | b:any, c"."""
    return re.findall(r"[a-z0-9][a-z0-9.+-]+", re.sub(r"\([^)]*\)|:\w+", "", relation))
