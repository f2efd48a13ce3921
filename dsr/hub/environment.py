"""What dsr takes from huggingface_hub, and what each variable of the environment means for dsr.

The only importer of huggingface_hub, and a late one, because huggingface_hub reads the variables when it is imported.
dsr takes the endpoint, the token and the locks of the cache from it, and nothing that downloads.

| choice of huggingface_hub | choice of dsr | why |
|---|---|---|
| a request has no time limit | the limits of limits.py, also for new tokens | no server may hold dsr |
| an answer is read whole, and its types are believed | answers.py | a hub, mirror or proxy may be hostile |
| `get_token`: CI identity, `HF_TOKEN`, file (renewed if a login ends soon), Colab | the same | you log in once |
| the token goes to each endpoint | to https and this machine only | others on the network could read it |
| `WeakFileLock` waits for ever, in silence | dsr says after half a second that it waits | you see why nothing happens |
| telemetry and update checks are on | off | dsr tells no one what you run |
| files come through Xet | over HTTP, resumed and verified by dsr | transfer.py |
| warnings of the server and of the library are printed | they are not | the text comes from the network |
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dsr.hub import http
from dsr.hub.http import RetryPolicy
from runtime.base.errors import DsrError, UsageError

_PUBLIC_HUB = "https://huggingface.co"
_LONGEST_WAIT = 3600  # seconds

HONOURED = {
    "HF_ENDPOINT": "the hub, or a mirror of it: an address that begins with https:// or http://",
    "HUGGINGFACE_CO_STAGING": "use the test system of Hugging Face instead",
    "HF_TOKEN": "your token",
    "HUGGING_FACE_HUB_TOKEN": "the old name of `HF_TOKEN`",
    "HF_TOKEN_PATH": "the file with your token",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "do not send the token",
    "HF_OIDC_RESOURCE": "get a token for this resource from the identity provider of a CI system",
    "HF_OIDC_ID_TOKEN": "the identity for `HF_OIDC_RESOURCE`",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "set by GitHub Actions, for `HF_OIDC_RESOURCE`",
    "ACTIONS_ID_TOKEN_REQUEST_URL": "set by GitHub Actions, for `HF_OIDC_RESOURCE`",
    "GITHUB_ACTIONS": "set by GitHub Actions, for `HF_OIDC_RESOURCE`",
    "HF_DEVICE_CODE_OAUTH_CLIENT_ID": "the name of the program in a browser login, whose tokens are renewed",
    "VERTEX_PRODUCT": "tells Colab Enterprise, which has no store of tokens, from Colab",
    "HF_HOME": "the folder for cache and token",
    "HF_HUB_CACHE": "the cache",
    "HUGGINGFACE_HUB_CACHE": "the old name of `HF_HUB_CACHE`",
    "XDG_CACHE_HOME": "the folder that has `huggingface/` without `HF_HOME`",
    "HF_HUB_OFFLINE": "download nothing",
    "TRANSFORMERS_OFFLINE": "the same as `HF_HUB_OFFLINE`",
    "HF_HUB_DOWNLOAD_TIMEOUT": "seconds that a connection may be silent. Default: 10",
    "HF_HUB_DISABLE_SYMLINKS": "put files into the snapshots of the cache, without symbolic links",
    "HF_HUB_USER_AGENT_ORIGIN": "added to the name of the program that the hub sees",
    "HTTPS_PROXY": "the proxy for https; also `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`",
    "SSL_CERT_FILE": "the certificates to trust; also the folder `SSL_CERT_DIR`",
    "NO_COLOR": "no colours",
}

# Name -> why dsr does not use it.
UNUSED = {
    "HF_HUB_ETAG_TIMEOUT": "dsr asks for no ETag on its own; `HF_HUB_DOWNLOAD_TIMEOUT` is the limit of each request",
    "HF_HUB_DISABLE_XET": "dsr always downloads over HTTP, so that a download resumes and is verified",
    "HF_HUB_ENABLE_HF_TRANSFER": "dsr always downloads over HTTP",
    "HF_XET_*": "dsr does not use Xet",
    "HF_HUB_DISABLE_SHARED_BLOBS": "dsr reads the files that other tools share, and shares none",
    "HF_HUB_DISABLE_TELEMETRY": "dsr sends no telemetry",
    "DISABLE_TELEMETRY": "dsr sends no telemetry",
    "DO_NOT_TRACK": "dsr sends no telemetry",
    "HF_HUB_DISABLE_PROGRESS_BARS": "dsr has its own; `--quiet` hides them",
    "TQDM_POSITION": "dsr has its own progress bars",
    "HF_HUB_DISABLE_SYMLINKS_WARNING": "dsr does not warn",
    "HF_HUB_DISABLE_EXPERIMENTAL_WARNING": "dsr uses nothing experimental",
    "HF_HUB_DISABLE_UPDATE_CHECK": "dsr checks for no updates",
    "HF_HUB_VERBOSITY": "dsr shows no log of huggingface_hub",
    "HF_DEBUG": "for a traceback of dsr: `DSR_DEBUG=1`",
    "REQUESTS_CA_BUNDLE": "use `SSL_CERT_FILE`; the same for `CURL_CA_BUNDLE`",
    "HF_ASSETS_CACHE": "dsr keeps nothing there; the same for `HUGGINGFACE_ASSETS_CACHE`",
    "HUGGINGFACE_ASSETS_CACHE": "dsr keeps nothing there",
    "HF_INFERENCE_ENDPOINT": "dsr computes on your machines only",
    "CLAUDE_CONFIG_DIR": "for a command of `hf`",
    "SHELL": "for a command of `hf`",
    "EAGER_IMPORT": "for the tests of huggingface_hub",
    "OAUTH_CLIENT_ID": "for web applications on the hub (Spaces)",
    "OAUTH_CLIENT_SECRET": "for Spaces",
    "OAUTH_SCOPES": "for Spaces",
    "OPENID_PROVIDER_URL": "for Spaces",
    "SPACE_HOST": "for Spaces",
    "SPACE_ID": "for Spaces",
    "WEBHOOK_SECRET": "for Spaces",
}


@dataclass(frozen=True, slots=True)
class Environment:
    """The values of the variables of HONOURED that need reading. `origin` is empty if none is set."""

    endpoint: str
    offline: bool
    stall_seconds: float
    symlinks: bool
    origin: str
    sends_token: bool

    def token(self) -> str | None:
        """The user's token; that of a browser login is renewed if it ends soon.

        Raises DsrError if it cannot be read.
        """
        if not self.sends_token or self.offline:
            return None
        huggingface_hub = library()
        huggingface_hub.set_client_factory(lambda: http.new_client(RetryPolicy(self.stall_seconds, origin=self.origin)))
        try:
            token: str | None = huggingface_hub.get_token()
        except OSError as error:
            raise DsrError(
                f"cannot read your token in {huggingface_hub.constants.HF_TOKEN_PATH}: {error.strerror}",
                hint="set HF_TOKEN to your token, or HF_HOME to a folder that you can read",
            ) from error
        except Exception as error:  # the identity provider of a CI system, or its client, may fail in many ways
            raise DsrError(
                f"cannot get a token: {str(error).strip() or type(error).__name__}", hint="set HF_TOKEN to your token"
            ) from error
        finally:
            huggingface_hub.close_session()
        if token and not re.fullmatch(r"[\x21-\x7e]+", token):
            raise DsrError("your token has characters that no token has", hint="run 'hf auth login' or set HF_TOKEN")
        return token


def read() -> Environment:
    """Read the variables. Raises UsageError for a value that cannot be used."""
    _check()
    constants = library().constants
    endpoint: str = constants.ENDPOINT or _PUBLIC_HUB
    return Environment(
        endpoint=endpoint,
        offline=constants.is_offline_mode(),
        stall_seconds=float(constants.HF_HUB_DOWNLOAD_TIMEOUT),
        symlinks=not constants.HF_HUB_DISABLE_SYMLINKS,
        origin=constants.HF_HUB_USER_AGENT_ORIGIN or "",
        sends_token=not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN,
    )


def _check() -> None:
    """Raise UsageError for values that huggingface_hub or httpx2 would answer with a traceback."""
    for name in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
        text = os.environ.get(name)
        seconds = http.number(text.strip()) if text is not None else 0
        if seconds is None or seconds > _LONGEST_WAIT:
            raise UsageError(
                f"{name} must be a whole number of seconds, at most {_LONGEST_WAIT}, and not {text!r}",
                hint=f"unset {name}, or set it to 10",
            )
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint and not _is_address(endpoint):
        raise UsageError(
            "HF_ENDPOINT is not an address of a hub", hint=f"unset HF_ENDPOINT, or set it to {_PUBLIC_HUB}"
        )  # not shown, because it may hold a password
    origin = os.environ.get("HF_HUB_USER_AGENT_ORIGIN", "")
    if not re.fullmatch(r"[\x20-\x7e]{0,200}", origin):
        raise UsageError(
            "HF_HUB_USER_AGENT_ORIGIN has characters that no header can have", hint="unset HF_HUB_USER_AGENT_ORIGIN"
        )


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # ValueError
    except ValueError:
        return False
    plain = re.fullmatch(r"[\x21-\x7e]+", text) is not None
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)


def library() -> Any:
    """huggingface_hub, imported when it is needed, without its telemetry, warnings and logs."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.pop("HF_HUB_VERBOSITY", None)  # an unknown value is printed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils

    huggingface_hub.utils.logging.set_verbosity(logging.CRITICAL)
    return huggingface_hub
