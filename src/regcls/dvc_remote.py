"""The default DVC remote: its URL and settings, read with DVC's own configuration (.dvc/config, config.local, …)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regcls.errors import MissingError, UserError

_CLIENT_NAMES = {  # DVC's names -> boto3's
    "endpointurl": "endpoint_url",
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
    "profile": "profile",
    "region": "region_name",
    "use_ssl": "use_ssl",
    "ssl_verify": "verify",
}


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A DVC remote."""

    name: str
    url: str
    settings: Mapping[str, Any] = field(repr=False)  # may contain a password

    def s3_settings(self) -> dict[str, Any]:
        """Keyword arguments for `regcls.object_store.s3_client`."""
        return {_CLIENT_NAMES[name]: value for name, value in self.settings.items() if name in _CLIENT_NAMES}


def default_remote(root: Path) -> Remote:
    """The remote that `dvc push` and `dvc pull` use in the project `root`.

    Raises:
        MissingError: none is configured, or `root` is not a DVC project.
        UserError: the configuration cannot be read, or names a remote that it does not define.
    """
    from dvc.config import Config, ConfigError  # type: ignore[import-untyped]

    if not (root / ".dvc").is_dir():
        raise MissingError(f"{root} is not a DVC project: there is no folder .dvc. Clone the repository, or run: dvc init --no-scm")
    try:
        config = Config(str(root / ".dvc"))
    except ConfigError as error:
        raise UserError(f"cannot read DVC's configuration in {root / '.dvc'}: {error}") from error
    name = config["core"].get("remote")
    if not name:
        raise MissingError("no default remote. To share data: dvc remote add -d NAME s3://bucket/prefix (or a folder)")
    settings = config["remote"].get(name)
    if settings is None:
        raise UserError(f"the default DVC remote {name} is not configured. Choose another: dvc remote default NAME")
    return Remote(name=name, url=str(settings["url"]), settings=settings)
