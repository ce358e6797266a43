"""Checks of the machine and the Python environment: packages, commands on PATH, torch, GPU and driver, disk space."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from regcls.checks import Finding, Place, bad, good, nearest, note
from regcls.errors import UserError
from regcls.files import check_locks, temporary_home
from regcls.tracking.store import database_of, locks_of, project_root, store_uri
from regcls.words import counted

LEAST_TEMPORARY = 5e8  # bytes, for temporary files: generated archives, states and files of runs that are fetched
LEAST_FREE = 2e9  # bytes: a run on faces writes several hundred megabytes of checkpoints and predictions
SMI_WAIT = 10.0  # seconds for nvidia-smi, which may have to load the driver
NEW_TORCH = "pip install --force-reinstall torch=={version} from PyPI, whose Linux build has CUDA (no CPU index in pip's configuration)"


def python(place: Place) -> Finding:
    """The interpreter, and whether the package versions are those of requirements.lock."""
    here = f"{platform.python_version()} in {sys.prefix}"
    lock = place.root / "requirements.lock"
    if not lock.exists():
        return note(f"{here}; there is no requirements.lock to compare packages with", "git checkout requirements.lock")
    locked = dict(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE))
    installed = {name: _version(name) for name in locked}
    missing = [name for name, version in installed.items() if version is None]
    other = [f"{name} {installed[name]} (locked: {locked[name]})" for name in locked if installed[name] not in (None, locked[name])]
    if missing or other:
        problems = "; ".join(
            f"{len(names)} {problem}: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"
            for names, problem in ((missing, "packages of requirements.lock missing"), (other, "of another version"))
            if names
        )
        return note(f"{here}; {problems}", "pip install -r requirements.lock (make venv)")
    return good(f"{here}; all {len(locked)} packages as in requirements.lock")


def _version(package: str) -> str | None:
    """Version without a build tag such as +cpu; None if the package is not installed."""
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def commands(place: Place) -> Finding:
    """Whether the commands that the stages and `mlflow run` start by name belong to this environment."""
    here = Path(sys.executable).parent
    paths = {name: shutil.which(name) for name in ("python", "regcls", "dvc", "mlflow")}
    if missing := [name for name, path in paths.items() if path is None]:
        return note(f"not on PATH: {', '.join(missing)}; dvc repro starts `python -m regcls`", f"source {here}/activate")
    if foreign := [path for path in paths.values() if path and Path(path).parent != here]:
        return note(f"of another environment than {here}: {', '.join(foreign)}; dvc repro would use these", f"source {here}/activate")
    return good(f"{', '.join(paths)} are those of {here}")


def torch(place: Place) -> Finding:
    """Whether PyTorch can be imported, and which build it is."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "ROCm" if torch.version.hip else "CPU only"
    return good(f"{torch.__version__}, built for {build}; {torch.get_num_threads()} threads")


def gpu(place: Place) -> Finding:
    """Whether PyTorch can compute on the GPU that the driver sees. Having no GPU is a fault only if compute.device requires one.

    If training is on a Ray cluster: what that has.
    """
    if place.params and place.params.compute.engine == "ray":
        return _cluster(place.params.compute.address)
    import torch

    try:
        seen = _seen_by_driver()
    except (OSError, subprocess.SubprocessError) as error:  # installed, but it fails or hangs
        return bad(f"nvidia-smi fails: {error}", "reinstall the NVIDIA driver, or restart the machine")
    if torch.cuda.is_available():
        return _try_gpus(place)
    if seen and not torch.version.cuda:
        version = torch.__version__.partition("+")[0]
        return bad(
            f"{seen}, but PyTorch {torch.__version__} is built without CUDA: training uses the CPU", NEW_TORCH.format(version=version)
        )
    if seen:
        return bad(
            f"{seen}, but PyTorch, built for CUDA {torch.version.cuda}, cannot use it",
            f"install a driver for CUDA {torch.version.cuda} or newer; see CUDA_VISIBLE_DEVICES; in Docker: docker run --gpus all",
        )
    if place.params and place.params.compute.device == "cuda":
        return bad("none is seen, and compute.device = cuda in params.yaml", "set compute.device to auto; in Docker: docker run --gpus all")
    return note(f"none: training uses the CPU ({os.cpu_count()} cores)", "in Docker on a machine with one: docker run --gpus all")


def _seen_by_driver() -> str:
    """Names and driver version of the GPUs from nvidia-smi; empty without it, or without a GPU.

    Raises:
        OSError, SubprocessError: nvidia-smi fails or hangs.
    """
    if not (program := shutil.which("nvidia-smi")):
        return ""
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=SMI_WAIT, check=False)
    if completed.returncode:
        raise subprocess.SubprocessError(" ".join((completed.stdout + completed.stderr).split())[:200])
    rows = [line.rpartition(", ") for line in completed.stdout.strip().splitlines()]
    return f"{', '.join(name for name, _, _ in rows)} (driver {rows[0][2]})" if rows else ""


def _cluster(address: str) -> Finding:
    try:
        from regcls.training.cluster.bridge import connect
    except ImportError as error:
        return bad(f"compute.engine = ray, but cannot import {error.name}", "install requirements.lock; or set compute.engine to local")
    try:
        nodes = connect(address)
    except Exception as error:  # of many kinds: no answer, other versions
        reason = " ".join(str(error).split())[:200]
        return bad(f"no Ray cluster at compute.address = {address}: {reason}", "see `ray status`; run this on a node of the cluster")
    counts = (counted(sum(node.gpus for node in nodes), "GPU"), counted(sum(node.cpus for node in nodes), "CPU"))
    return good(f"the Ray cluster at {address} has {' and '.join(counts)} on {counted(len(nodes), 'node')}")


def _try_gpus(place: Place) -> Finding:
    import torch

    from regcls.training.places import places_for

    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    kinds = Counter(f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, compute capability {gpu.major}.{gpu.minor}" for gpu in devices)
    gpus = "; ".join(f"{count} × {kind}" for kind, count in kinds.items())
    try:
        for index in range(len(devices)):
            ones = torch.ones(64, 64, device=f"cuda:{index}")
            if float((ones @ ones)[0, 0]) != 64:
                return bad(f"{gpus}, but number {index} computes wrongly", "test the GPU's memory; hide it with CUDA_VISIBLE_DEVICES")
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        return bad(f"{gpus}, but computing on number {index} fails: {reason}", "install a PyTorch built for this GPU")
    if place.params:
        try:
            places = places_for(place.params.compute, place.root)
        except UserError as error:
            return bad(f"{gpus}, but {error}", "set compute.gpus to auto, or see CUDA_VISIBLE_DEVICES")
        gpus += f"; training uses {sum(where.device == 'cuda' for where in places) or 'none: compute.device = cpu in params.yaml'}"
    return good(gpus if torch.cuda.is_bf16_supported() else f"{gpus}; no bf16: set precision to float32")


def disk(place: Place) -> Finding:
    """Free space for data, checkpoints, undelivered runs and artifacts, whether their folders are writable, and file locks."""
    home = project_root(place.root)
    folders, locks = {"project": home, ".regcls": home / ".regcls"}, home / ".regcls"
    with suppress(UserError):  # an invalid URI is for the check of tracking
        locks = locks_of(uri := store_uri(home), home)
        if database := database_of(uri):
            folders["artifacts"] = database.parent / "mlartifacts"
    existing = {name: nearest(path) for name, path in folders.items()}
    if read_only := [str(path) for path in existing.values() if not os.access(path, os.W_OK)]:
        return bad(f"cannot write {', '.join(dict.fromkeys(read_only))}", "make it writable: see its owner with ls -ld")
    for folder in dict.fromkeys((existing[".regcls"], nearest(locks))):
        check_locks(folder)
    disks: dict[int, list[str]] = {}
    for name, path in existing.items():
        disks.setdefault(path.stat().st_dev, []).append(name)
    free = {", ".join(names): shutil.disk_usage(existing[names[0]]).free for names in disks.values()}
    text = "; ".join(f"{size / 1e9:.1f} GB free ({names})" for names, size in free.items())
    temporary = temporary_home()
    if temporary and (spare := shutil.disk_usage(temporary).free) < LEAST_TEMPORARY:
        text += f"; {spare / 1e9:.1f} GB free in {temporary}, the folder of temporary files"
    if min(free.values()) < LEAST_FREE:
        return bad(
            f"{text}; a run needs about {LEAST_FREE / 1e9:.0f}",
            "free some space: old folders in .regcls/checkpoints, dvc gc --workspace, prepared data as hard links (docs/images.md)",
        )
    if temporary is None:
        return bad(f"{text}; no folder for temporary files can be written", "set TMPDIR to a writable folder with free space")
    if spare < LEAST_TEMPORARY:
        return bad(f"{text}; a run needs up to {LEAST_TEMPORARY / 1e9:g}", "free some space there, or set TMPDIR to another folder")
    if (chosen := os.environ.get("TMPDIR")) and Path(chosen).absolute() != temporary:
        return note(f"{text}; TMPDIR={chosen} cannot be used, {temporary} is", "make it a writable folder with free space, or unset it")
    return good(text)
