"""Start and stop a real SLURM of three nodes on this one host, for tests (Debian: apt-get install slurm-wlm munge).

One slurmctld and three slurmd (gpu1, gpu2, gpu3), each node with four CPUs and one GPU that are only claimed, so
that jobs really queue, run beside one another on different nodes and leave SLURM's own records behind.

    python tests/slurm_cluster.py start --folder DIR      python tests/slurm_cluster.py status
    python tests/slurm_cluster.py stop --folder DIR       with cluster(folder) as c: ...; c.jobs()
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

NODES = ("gpu1", "gpu2", "gpu3")
INSTALL_HINT = "apt-get install slurm-wlm munge"
MARKER = "# Written by tests/slurm_cluster.py; working folder: "
# SLURM's default folder and no other: Snakemake's executor plugin drops SLURM_CONF from the environment of its jobs.
CONFIG_FOLDER = Path("/etc/slurm")
CONFIG_FILES = ("slurm.conf", "gres.conf")
DAEMONS = ("slurmctld", "slurmd", "munged")
COMMANDS = ("munge", "sbatch", "squeue", "srun", "scancel", "scontrol", "sinfo")
# Daemons live in sbin, which is not on every PATH.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
# No cgroups, no accounting database: neither is to be had in a container. Of what is, pgid is nearest to the cgroups of
# real clusters: a step is over, and torn down, when its first process has ended (linuxproc finds the others still).
ProctrackType=proctrack/pgid
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed.txt
MpiDefault=none
MailProg=/bin/true
# Nodes claim more CPUs and memory than the host has; config_overrides makes slurmd accept the claim.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
DefMemPerCPU=1000
# squeue must still know a job that ended when Snakemake asks for it, and jobs are to start within a second.
MinJobAge=600
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
KillWait=30
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=cpu Nodes=ALL MaxTime=INFINITE State=UP
"""
NODE = "NodeName={} NodeHostname={} NodeAddr=127.0.0.1 Port={} CPUs=4 RealMemory=64000 Gres=gpu:1 State=UNKNOWN"
# Any character device will do, but SLURM refuses a bare count.
GRES_CONF = "NodeName={} Name=gpu File=/dev/null\n"

_children = []


class ClusterError(RuntimeError):
    """The cluster cannot be started; the message says why and what to do."""


@dataclass(frozen=True)
class Cluster:
    """What a test needs to know of a running cluster; the folder holds its logs and records."""

    folder: Path

    @property
    def completion_log(self):
        """SLURM's own text record, one line for each job that has ended."""
        return self.folder / "completed.txt"

    def stop_controller(self):
        """End slurmctld as a restart of its host does; jobs go on, and no command of SLURM gets an answer."""
        for pid in [pid for pid, name in _ours(self.folder).items() if name == "slurmctld"]:
            _kill(pid, signal.SIGTERM)
        _wait(lambda: "slurmctld" not in _ours(self.folder).values(), 20)

    def start_controller(self):
        """Start slurmctld again, with the state that it has saved."""
        _spawn(self.folder, "slurmctld", "-D")
        if not _wait(_ready_nodes, 30):
            raise ClusterError(f"slurmctld does not answer\n{_log_tails(self.folder)}")

    def jobs(self):
        """Return ended jobs as dicts: JobId, Name, JobState, StartTime, EndTime, NodeList, ... and Comment.

        Snakemake names every job after its run and puts rule and wildcards into the comment. The text record lacks
        that, so it is asked from slurmctld, which keeps it for MinJobAge seconds ("" where it is gone).
        """
        if not self.completion_log.exists():
            return []
        lines = _output("squeue", "--all", "-h", "-t", "all", "-o", "%i|%k").splitlines()
        comments = dict(line.split("|", 1) for line in lines)
        records = [
            {key: value.strip() for key, value in re.findall(r"(\w+)=(.*?)(?= \w+=|$)", line.strip())}
            for line in self.completion_log.read_text().splitlines()
        ]
        return [{**record, "Comment": comments.get(record["JobId"], "").replace("(null)", "")} for record in records]


def missing():
    """Return the names of the programs that are needed and not installed."""
    return [name for name in (*DAEMONS, *COMMANDS) if not _which(name)]


def why_not():
    """Return why no cluster can be started here, with the cure, or "" if it can: the message of a skipped test."""
    if absent := missing():
        return f"SLURM is not installed (missing: {', '.join(absent)}); install it with: {INSTALL_HINT}"
    if os.geteuid() != 0:
        return "starting a SLURM for tests needs root: the daemons switch users and read /etc/slurm"
    owner = _configured_folder()
    if owner is None and any((CONFIG_FOLDER / name).exists() for name in CONFIG_FILES):
        return f"{CONFIG_FOLDER} holds a configuration that is not ours; it is left alone, and no test cluster started"
    return ""


@contextmanager
def cluster(folder):
    """Run a cluster for the length of a with block."""
    try:
        yield start(folder)
    finally:
        stop(folder)


def start(folder, timeout=60):
    """Start all daemons and wait until every node answers.

    Every start begins from nothing: what an unclean end left in this folder is killed and its jobs forgotten, so that
    job ids and records are those of this start alone.
    """
    work = _work_folder(folder)
    if re.search(r"[\s#%]", str(work)):
        raise ClusterError(f"SLURM cannot handle a folder with blanks, # or %: {work}")
    if len(str(work)) > 70:  # sockets below it have a limit of 108; a longer path leaves every job queued for ever
        raise ClusterError(f"SLURM cannot handle so long a path: {work}")
    if reason := why_not():
        raise ClusterError(reason)
    other = _configured_folder()
    if other and other != work and _ours(other):
        raise ClusterError(f"another test cluster runs in {other}; stop it: {sys.argv[0]} stop --folder {other.parent}")
    stop(folder)
    shutil.rmtree(work, ignore_errors=True)
    for name in ("state", *(f"spool/{node}" for node in NODES)):
        (work / name).mkdir(parents=True)
    try:
        _write_config(work)
        _start_munge(work)
        _spawn(work, "slurmctld", "-D")
        for node in NODES:
            _spawn(work, "slurmd", "-D", "-N", node)
        _wait(lambda: "slurmctld" not in _ours(work).values() or _ready_nodes() == set(NODES), timeout)
        if _ready_nodes() != set(NODES):
            found = _output("sinfo", "-N", "-l") or "slurmctld does not answer"
            raise ClusterError(f"not all nodes became idle:\n{found}\n{_log_tails(work)}")
    except BaseException:
        stop(folder)
        raise
    return Cluster(work)


def stop(folder):
    """End every daemon and every job that this folder's cluster started, and remove its configuration."""
    work = _work_folder(folder)
    victims = set()
    for sig in (signal.SIGTERM, signal.SIGKILL):
        victims.update(_ours(work))  # collected anew: a daemon may have started a job since
        for pid in victims:
            _kill(pid, sig)
        if _wait(lambda: not victims & _processes().keys(), 4):
            break
    for child in _children:
        child.poll()  # leaves no zombie in a test process that lives on
    if _configured_folder() == work:
        for name in CONFIG_FILES:
            (CONFIG_FOLDER / name).unlink(missing_ok=True)


def _work_folder(folder):
    """Return the subfolder that holds all of a cluster's files: a start may delete it without harm to anything else."""
    return Path(folder).resolve() / "slurm-test-cluster"


def _which(name):
    return shutil.which(name, path=SEARCH_PATH)


def _output(*command):
    """Return what a command printed; an unreachable daemon makes that nothing, not an error."""
    try:
        run = subprocess.run([_which(command[0]), *command[1:]], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return ""
    return run.stdout.strip()


def _wait(condition, seconds):
    """Return whether the condition came true in time."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    return bool(met)


def _configured_folder():
    """Return the working folder named in our own SLURM configuration; None where that is absent or foreign."""
    path = CONFIG_FOLDER / "slurm.conf"
    first = path.read_text().splitlines()[:1] if path.exists() else []
    return Path(first[0].removeprefix(MARKER)) if first and first[0].startswith(MARKER) else None


def _free_ports(count):
    """Return ports that nobody listens on, so that a SLURM of the host's own is not in the way."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _write_config(folder):
    host, ports = socket.gethostname().split(".")[0], _free_ports(1 + len(NODES))
    nodes = "\n".join(NODE.format(node, host, port) for node, port in zip(NODES, ports[1:], strict=True))
    CONFIG_FOLDER.mkdir(exist_ok=True)
    texts = SLURM_CONF.format(host=host, ports=ports, folder=folder, nodes=nodes), GRES_CONF.format(",".join(NODES))
    for name, text in zip(CONFIG_FILES, texts, strict=True):
        (CONFIG_FOLDER / name).write_text(f"{MARKER}{folder}\n{text}")


def _spawn(folder, program, *options, **popen):
    """Start a daemon in the foreground of a session of its own; its current folder marks it as ours (see _ours)."""
    with (folder / "stderr.log").open("ab") as log:
        command = [_which(program), *options]
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        _children.append(subprocess.Popen(command, cwd=folder, start_new_session=True, **streams, **popen))


def _start_munge(folder):
    """Start munged as Debian's package would, with a key if there is none, unless one runs already."""
    if _munge_answers():
        return
    key = Path("/etc/munge/munge.key")
    for path in (key.parent, Path("/run/munge"), Path("/var/lib/munge")):
        path.mkdir(parents=True, exist_ok=True)
        shutil.chown(path, "munge", "munge")
        path.chmod(0o755 if path.parent.name == "run" else 0o700)  # everyone must reach the socket, nobody the rest
    if not key.exists():
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        shutil.chown(key, "munge", "munge")
    # --force: take over the socket of a munged that was killed.
    _spawn(folder, "munged", "--foreground", "--force", user="munge", group="munge", extra_groups=[])
    if not _wait(_munge_answers, 20):
        raise ClusterError(f"munged does not answer\n{_log_tails(folder)}")


def _munge_answers():
    return subprocess.run([_which("munge"), "-n"], capture_output=True).returncode == 0


def _ready_nodes():
    """Return the nodes that have registered and can take a job."""
    nodes = (line.split() for line in _output("sinfo", "-h", "-N", "-p", "gpu", "-o", "%N %T").splitlines())
    return {name for name, state in nodes if state == "idle"}


def _log_tails(folder, lines=8):
    """Return the ends of all daemon logs, for an error message."""
    logs = sorted(folder.glob("*.log"))  # munged writes to stderr.log
    tails = ((path, path.read_text(errors="replace").splitlines()[-lines:]) for path in logs)
    return "\n".join("\n  ".join([f"--- {path}", *tail]) for path, tail in tails)


def _processes():
    """Return {pid: (parent's pid, name)} of all processes but zombies."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue  # ended meanwhile
        state, parent = rest.split()[:2]
        if state != "Z":
            found[int(stat.parent.name)] = int(parent), name
    return found


def _ours(folder):
    """Return {pid: name} of this folder's daemons and of what runs below them.

    A daemon is known by its name and its current folder: that holds after a lost pid file, does not mistake a reused
    pid, and finds the slurmstepd of a job, which lives on when its slurmd is killed.
    """
    processes = _processes()
    found = {}
    for pid, (_, name) in processes.items():
        try:
            if name in (*DAEMONS, "slurmstepd") and Path(f"/proc/{pid}/cwd").readlink() == folder:
                found[pid] = name
        except OSError:
            continue  # ended meanwhile, or not for us to see
    size = -1
    while len(found) != size:
        size = len(found)
        found |= {pid: name for pid, (parent, name) in processes.items() if parent in found}
    return found


def _kill(pid, sig):
    with suppress(ProcessLookupError):
        os.kill(pid, sig)


def main():
    parser = argparse.ArgumentParser(description="A real SLURM of three nodes on this one host, for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("start", "stop"):
        commands.add_parser(name).add_argument("--folder", required=True, help="gets a subfolder of logs and records")
    commands.add_parser("status")
    args = parser.parse_args()
    if args.command == "start":
        try:
            print(f"three nodes are ready; ended jobs are listed in {start(args.folder).completion_log}")
        except ClusterError as error:
            sys.exit(f"slurm_cluster: {error}")
    elif args.command == "stop":
        stop(args.folder)
    else:
        folder = _configured_folder()
        running = sorted(_ours(folder).values()) if folder else []
        print(f"folder: {folder}\nprocesses: {', '.join(running) or 'none'}")
        print(_output("sinfo", "-N", "-l") if running else why_not() or "not running")


if __name__ == "__main__":
    main()
