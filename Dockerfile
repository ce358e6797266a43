# One image for training (GPU or CPU), DVC and the tracking server, with the packages of requirements.lock that `make` installs.
#
#   docker build -t regcls .
#   docker build -t regcls --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .     # without CUDA: 2.8 GB
#   docker run --rm --gpus all --shm-size 8g --user "$(id -u):$(id -g)" -v "$PWD:/project" regcls dvc repro
#
# The base only needs Python 3.11 in /usr/bin or /usr/local/bin.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS packages
# Read by pip itself; not set by default.
ARG PIP_EXTRA_INDEX_URL
# KubeRay needs more of Ray than the lock has: --build-arg PIP_PACKAGES="ray[default]" --build-arg APT_PACKAGES="wget" (docs/cluster.md)
ARG PIP_PACKAGES=""
COPY requirements.lock /tmp/requirements.lock
# Only the lock is copied before this, so this layer is rebuilt only when the lock changes.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3.11 -m venv /opt/venv \
    && /opt/venv/bin/pip install --disable-pip-version-check --requirement /tmp/requirements.lock ${PIP_PACKAGES}


FROM ${BASE}
# torch.compile needs a compiler at run time: --build-arg APT_PACKAGES="g++"
ARG APT_PACKAGES=""
# git: for DVC, and for the commit recorded with each run. tini: forwards signals and reaps orphaned processes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git tini ${APT_PACKAGES} \
    && rm -rf /var/lib/apt/lists/* \
    # The mounted repository may belong to another user, and git would refuse it.
    && git config --system safe.directory /project \
    # The image may run as any user of the host (--user), who has no home here.
    && useradd --uid 1000 --home-dir /home/regcls --create-home regcls \
    && chmod 1777 /home/regcls \
    && install --directory --owner=1000 --group=1000 /project

COPY --from=packages /opt/venv /opt/venv
COPY docker/entrypoint docker/regcls /usr/local/bin/

# USER: read by Python's getpass, which would otherwise fail for a user id without a name.
# NVIDIA_…: read by NVIDIA's container runtime, which gives the container these GPUs (`docker run --gpus` sets its own) and these parts of
# the machine's driver: compute is CUDA, utility is nvidia-smi. Without that runtime they have no effect.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    VIRTUAL_ENV=/opt/venv \
    HOME=/home/regcls \
    USER=regcls \
    PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    DVC_NO_ANALYTICS=true \
    NO_ALBUMENTATIONS_UPDATE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

USER 1000:1000
WORKDIR /project
# For use without a mounted repository. The image has no git history, so the commit of its runs is unknown.
COPY --chown=1000:1000 . .
# Lets `mlflow run .` use this environment (MLproject), and DVC work without git unless a repository is mounted over this folder.
RUN MLFLOW_TRACKING_URI=http://unused regcls setup \
    && chmod -R a+rwX /home/regcls/.mlflow \
    && dvc config --local core.no_scm true

ENTRYPOINT ["tini", "-g", "--", "entrypoint"]
CMD ["regcls", "--help"]
