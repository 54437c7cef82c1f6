"""A pipeline that takes seconds, for tests of flows: real Git, real DVC, scripted stages.

    prepare -> train@a -> evaluate@a -> join
            -> train@b -> evaluate@b ->

`work/<stage>` has the instructions of a stage, one a line. A changed instruction makes it stale.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.support import ROOT

STAGES = ["prepare", "train@a", "evaluate@a", "train@b", "evaluate@b", "join"]
DVC_YAML = """
stages:
  prepare:
    cmd: python work.py prepare
    deps: [work/prepare]
    outs: [out/prepare]
  train:
    foreach: [a, b]
    do:
      cmd: python work.py train@${item} out/prepare
      deps: ["work/train@${item}", out/prepare]
      outs: ["out/train@${item}"]
  evaluate:
    foreach: [a, b]
    do:
      cmd: python work.py evaluate@${item} out/train@${item}
      deps: ["work/evaluate@${item}", "out/train@${item}"]
      outs: ["out/evaluate@${item}"]
  join:
    cmd: python work.py join out/evaluate@a out/evaluate@b
    deps: [work/join, "out/evaluate@a", "out/evaluate@b"]
    outs: [out/join]
"""
WORK_PY = """
import pathlib, signal, subprocess, sys, time

name = sys.argv[1]
with open("ran", "a") as ran:
    ran.write(name + "\\n")
for line in pathlib.Path("work", name).read_text().splitlines():
    verb, _, rest = line.partition(" ")
    if verb == "say":
        print(rest)
    elif verb == "stamp":
        with open("stamps", "a") as stamps:
            stamps.write(f"{name} {time.time()}\\n")
    elif verb == "sleep":
        pathlib.Path("at").mkdir(exist_ok=True)
        pathlib.Path("at", name).touch()
        time.sleep(float(rest))
    elif verb == "hang" and not pathlib.Path(rest).exists():  # the first time, on whatever machine
        pathlib.Path(rest).touch()
        time.sleep(300)
    elif verb == "meet":  # wait until another stage is there too
        pathlib.Path(rest, name).touch()
        deadline = time.monotonic() + 60
        while len(list(pathlib.Path(rest).iterdir())) < 2:
            if time.monotonic() > deadline:
                sys.exit("error: nobody came")
            time.sleep(0.1)
    elif verb == "spawn":  # a process of its own, in the stage's group
        code = f"import time; time.sleep({rest})  # spawned by {pathlib.Path.cwd()}"
        subprocess.Popen([sys.executable, "-c", code])
    elif verb == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif verb == "fail":
        sys.exit("error: " + rest)
    elif verb == "once" and not pathlib.Path("once").exists():
        pathlib.Path("once").touch()
        sys.exit("error: " + rest)
pathlib.Path("out").mkdir(exist_ok=True)
text = "".join(pathlib.Path(path).read_text() for path in ["work/" + name, *sys.argv[2:]])
pathlib.Path("out", name).write_text(text)
"""


def make(root: Path) -> Path:
    """Make the toy pipeline in `root`: committed, and no stage has run."""
    (root / "work").mkdir(parents=True)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "work.py").write_text(WORK_PY)
    shutil.copy(ROOT / "prefect.toml", root)
    (root / "params.yaml").write_text("architectures: {a: {like: plain_cnn}}\n")
    (root / ".gitignore").write_text("/.cache/\n/out/\n/ran\n/at/\n/once\n/stamps\n__pycache__/\n")
    for stage in STAGES:
        (root / "work" / stage).write_text(f"say {stage} at work\n")
    git(root, "init", "--quiet", "--initial-branch=main")
    dvc(root, "init", "--quiet")
    dvc(root, "config", "core.analytics", "false")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "start")
    return root


def copy(template: Path, root: Path) -> Path:
    """Copy a pipeline with its cache, so that a test may change it."""
    shutil.copytree(template, root, symlinks=True)
    return root


def instruct(root: Path, stage: str, *lines: str) -> None:
    """Set the instructions of a stage, which makes it stale."""
    (root / "work" / stage).write_text("\n".join(lines) + "\n")


def ran(root: Path) -> list[str]:
    """Return the stages that ran since the last call, in order."""
    path = root / "ran"
    names = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return names


def overlap(root: Path, one: str, other: str) -> float:
    """Return for how many seconds two stages with stamps ran at once since the last call."""
    stamps = [line.split() for line in (root / "stamps").read_text().splitlines()]
    (root / "stamps").unlink()
    times = {
        name: [float(time) for stage, time in stamps if stage == name] for name in (one, other)
    }
    return min(max(times[one]), max(times[other])) - max(min(times[one]), min(times[other]))


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout


def dvc(root: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def start_flow(root: Path, *arguments: str, **variables: str) -> subprocess.Popen:
    """Start `python -m flows.retrain` as a shell would, in a process group of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    update = () if "--update" in arguments else ("--no-update",)
    return subprocess.Popen(
        [sys.executable, "-m", "flows.retrain", *update, *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": path} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def at_work(root: Path, stage: str) -> bool:
    """Return whether a stage has reached its sleep."""
    return (root / "at" / stage).exists()


def processes(root: Path) -> dict[int, str]:
    """Return {pid: command line} of all other processes whose current folder is `root`."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            here = (entry / "cwd").readlink() == root
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if here and any(words) and int(entry.name) != os.getpid():
            found[int(entry.name)] = b" ".join(words).decode(errors="replace").strip()
    return found


def kill(root: Path) -> None:
    """Kill these processes at once, as if the machine died."""
    for pid in processes(root):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool], seconds: float = 60) -> float:
    """Wait for a condition and return how long it took. Fail after `seconds`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - started
