"""config.json of a repository of the Hugging Face hub, or of a mirror that speaks its API."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from .web import open_outside

LONGEST = 4 << 20  # bytes of an answer that is read


class HubError(Exception):
    """Why a config.json could not be read, as a clause; ``silent`` if nobody answered, so that asking on is no use."""

    def __init__(self, text: str, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent


@dataclass(frozen=True)
class Hub:
    """Where the hub is (HF_ENDPOINT), and the token for gated repositories."""

    endpoint: str
    token: str = field(default="", repr=False)
    timeout: float = 10.0

    def config(self, repository: str, revision: str | None) -> tuple[dict[str, Any], str]:
        """config.json of a revision, and the commit that it is of. Raises ``HubError``."""
        name = urllib.parse.quote(repository)
        where = urllib.parse.quote(revision or "main", safe="")
        info = self._json(f"/api/models/{name}/revision/{where}", repository, revision)
        commit = str(info.get("sha") or revision or "main")
        config = self._json(f"/{name}/resolve/{urllib.parse.quote(commit, safe='')}/config.json", repository, revision)
        return config, commit

    def _json(self, path: str, repository: str, revision: str | None) -> dict[str, Any]:
        request = urllib.request.Request(self.endpoint.rstrip("/") + path)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        host = urllib.parse.urlsplit(self.endpoint).netloc or self.endpoint
        try:
            with open_outside(request, self.timeout) as response:
                found = json.loads(response.read(LONGEST))
        except urllib.error.HTTPError as error:
            raise HubError(_refused(error.code, host, repository, revision), silent=error.code >= 500) from error
        except OSError as error:
            raise HubError(f"{host} does not answer", silent=True) from error
        except ValueError as error:
            raise HubError(f"{host} answered with something else than JSON") from error
        if not isinstance(found, dict):
            raise HubError(f"{host} answered with something else than a mapping")
        return found


def _refused(code: int, host: str, repository: str, revision: str | None) -> str:
    if code in (401, 403):
        return f"{host} shows {repository} to those only who accepted its licence: set HF_TOKEN or model_store_hf_token"
    if code == 404:
        return f"{host} has no {repository}{f' at revision {revision}' if revision else ''} with a config.json"
    return f"{host} answered {code}"
