"""The walls of `eval.sandbox`, built with system calls: namespaces, a file system of its own, and no privileges.

Standard library only: it runs in the sandbox's own interpreter, without the project and its packages.
"""

import ctypes
import errno
import os
import resource
import struct
import sys

NOBODY = 65534
OLD_ROOT = "/old"
PACKAGES = "/packages"
"""Where third-party packages stand inside."""
SCRATCH = "/tmp"
"""The working folder, which is the only place that can be written to."""
SCRATCH_BYTES = 16 << 20
OPEN_FILES = 64
THREADS = 64

# mount(2)
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
# clone(2): user, mount, process, network, IPC and host-name namespaces
_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
_SIGCHLD, _SIGKILL = 17, 9
# prctl(2)
_PDEATHSIG, _DUMPABLE, _SECCOMP, _NO_NEW_PRIVS = 1, 4, 22, 38

_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, function: str, *arguments: object) -> int:
    """Call a function of the C library.

    Raises:
        OSError: it failed; the text begins with `what`.
    """
    result = getattr(_libc, function)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


class _Machine:
    """What differs between processors: how seccomp names them, and the numbers of system calls."""

    def __init__(self, audit: int, clone: int, prctl: int, pivot_root: int, capset: int, refused: tuple[int, ...]):
        self.audit, self.clone, self.prctl, self.pivot_root, self.capset = audit, clone, prctl, pivot_root, capset
        self.refused = refused


# of every machine: pidfd_send_signal io_uring_setup pidfd_open pidfd_getfd process_madvise memfd_secret
_REFUSED = (424, 425, 434, 438, 440, 447)
_CLONE3, _NEWEST_KNOWN = 435, 450
# fork vfork (x86 only) execve execveat socket ptrace process_vm_readv process_vm_writev kcmp unshare setns keyctl
# add_key request_key bpf perf_event_open userfaultfd memfd_create shmget semget msgget mq_open syslog
_X86_64 = (57, 58, 59, 322, 41, 101, 310, 311, 312, 272, 308, 250, 248, 249, 321, 298, 323, 319, 29, 64, 68, 240, 103)
_ARM_64 = (221, 281, 198, 117, 270, 271, 272, 97, 268, 219, 217, 218, 280, 241, 282, 279, 194, 190, 186, 180, 116)
MACHINES = {
    "x86_64": _Machine(0xC000003E, 56, 157, 155, 126, _REFUSED + _X86_64),
    "aarch64": _Machine(0xC00000B7, 220, 167, 41, 91, _REFUSED + _ARM_64),
}


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends."""
    _call("prctl", "prctl", _PDEATHSIG, _SIGKILL, 0, 0, 0)


def clone() -> int:
    """Fork into new namespaces, where the child is process 1 and, until its ids are mapped, has no name for its user.

    Returns:
        0 in the child; in the parent the child's process id.
    """
    # (fork semantics: no stack is given; the interpreter has one thread only)
    number = MACHINES[os.uname().machine].clone
    return _call("new namespaces", "syscall", number, ctypes.c_ulong(_NAMESPACES | _SIGCHLD), None, None, None, None)


def map_ids(pid: int) -> None:
    """Name the users that exist inside `pid`'s namespaces: nobody, and for a while root where root started us.

    Started by root, inside's nobody is nobody outside, too; started by another user, it is that user.
    """
    for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
        if os.geteuid() == 0:
            lines = f"0 {own} 1\n{NOBODY} {NOBODY} 1\n"
        else:
            lines = f"{NOBODY} {own} 1\n"
            if kind == "gid":
                _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/{kind}_map", lines)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def build_view(packages: list[str]) -> None:
    """Leave of the file system the standard library, shared libraries and `packages`, read-only, and an empty folder.

    There is no /proc, no /etc, no /home and no /dev but null, zero and urandom.
    """
    folders = {folder: os.path.realpath(folder) for folder in _needed_folders()}
    _mount("", "/", "", _REC | _PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    os.mkdir(f"/tmp{OLD_ROOT}")
    pivot_root = MACHINES[os.uname().machine].pivot_root
    _call("pivot_root", "syscall", pivot_root, b"/tmp", f"/tmp{OLD_ROOT}".encode())
    os.chdir("/")
    for link in ("/lib", "/lib64"):  # where the loader looks for /usr/lib, on most systems
        if os.path.islink(OLD_ROOT + link):
            os.symlink(os.readlink(OLD_ROOT + link), link)
            os.makedirs(os.path.join("/", os.readlink(link)), exist_ok=True)
    for folder, source in folders.items():
        _show(source, folder)
    for package in packages:
        _show(package, f"{PACKAGES}/{os.path.basename(package)}")
    os.mkdir("/empty")
    for folder in sys.path:
        for unwanted in (f"{folder}/site-packages", f"{folder}/dist-packages"):
            if os.path.isdir(unwanted):
                _mount("/empty", unwanted, "", _BIND)
    os.mkdir("/dev")
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        os.close(os.open(device, os.O_CREAT | os.O_WRONLY, 0o644))
        _mount(OLD_ROOT + device, device, "", _BIND)
    _call("umount", "umount2", OLD_ROOT.encode(), _DETACH)
    os.rmdir(OLD_ROOT)
    os.mkdir(SCRATCH)
    _mount("tmpfs", "/", "", _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    flags = _NOSUID | _NODEV | _NOEXEC
    _mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={SCRATCH_BYTES},nr_inodes=1024,mode=1777")
    os.chdir(SCRATCH)
    _call("sethostname", "sethostname", b"sandbox", 7)


def _needed_folders() -> list[str]:
    """Return the standard library's folders and those of the shared libraries in use, without folders in folders."""
    with open("/proc/self/maps") as file:
        mapped = {line.split(maxsplit=5)[-1].strip() for line in file if ".so" in line}
    found = {os.path.dirname(path) for path in mapped if path.startswith("/")}
    found |= {path for path in sys.path if os.path.isdir(path)}
    return sorted(path for path in found if not any(path.startswith(f"{other}/") for other in found))


def _show(source: str, target: str) -> None:
    """Mount a folder of the old root at `target`, read-only with all that is mounted in it."""
    os.makedirs(target, exist_ok=True)
    _mount(OLD_ROOT + source, target, "", _BIND | _REC)
    with open(f"{OLD_ROOT}/proc/self/mountinfo") as file:
        points = [line.split()[4].encode().decode("unicode_escape") for line in file]
    for point in points:
        if point == target or point.startswith(f"{target}/"):
            kept = os.statvfs(point).f_flag & (_NOSUID | _NODEV | _NOEXEC)  # (the same bits; they may not be taken off)
            _mount("", point, "", _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV | kept)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    arguments = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _call(f"mount {target}", "mount", *arguments)


def confine(seconds: float, memory_mb: int) -> None:
    """Give up every privilege, set the limits, and close the system calls that no plain program needs.

    Args:
        seconds: of processor time, after which the kernel ends the process (rounded up; the referee is there before).
        memory_mb: address space, in MiB.
    """
    machine = MACHINES[os.uname().machine]
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _call("capset", "syscall", machine.capset, header, none)
    _call("no_new_privs", "prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("dumpable", "prctl", _DUMPABLE, 0, 0, 0, 0)  # no core dumps, whatever the host does with them
    limits = {
        resource.RLIMIT_CPU: int(seconds) + 2,
        resource.RLIMIT_AS: memory_mb << 20,
        resource.RLIMIT_FSIZE: SCRATCH_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (5, 14):  # before, it counts the user's other processes
        limits[resource.RLIMIT_NPROC] = THREADS
    for name, limit in limits.items():
        resource.setrlimit(name, (limit, limit))
    _filter_system_calls(machine)


def _filter_system_calls(machine: _Machine) -> None:
    """Refuse what could reach another process or the kernel's wide open doors: a second wall behind the namespaces.

    A new process is refused, too (threads are not): so the memory limit of one process is that of all the code.
    """
    load, jump, above, any_bit, answer = 0x20, 0x15, 0x25, 0x45, 0x06  # of classic BPF: LD, JEQ, JGT, JSET, RET
    allow, kill = 0x7FFF0000, 0x80000000
    refuse, unknown = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
    thread, first_argument = 0x00010000, 16

    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    program = [
        instruction(load, 4),  # the machine
        instruction(jump, machine.audit, 1, 0),
        instruction(answer, kill),
        instruction(load, 0),  # the system call
        instruction(above, _NEWEST_KNOWN, 0, 1),  # also the 32-bit calls of x86-64
        instruction(answer, unknown),
        instruction(jump, _CLONE3, 0, 1),  # its flags are out of sight; the C library then takes clone
        instruction(answer, unknown),
    ]
    for number in machine.refused:
        program += [instruction(jump, number, 0, 1), instruction(answer, refuse)]
    program += [
        instruction(jump, machine.clone, 0, 4),
        instruction(load, first_argument),
        instruction(any_bit, thread, 0, 1),
        instruction(answer, allow),
        instruction(answer, refuse),
        instruction(jump, machine.prctl, 0, 3),
        instruction(load, first_argument),
        instruction(jump, _DUMPABLE, 0, 1),
        instruction(answer, refuse),
        instruction(answer, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(program))
    pointer = struct.pack("HP", len(program), ctypes.addressof(code))
    _call("seccomp", "prctl", _SECCOMP, 2, pointer, 0, 0)
