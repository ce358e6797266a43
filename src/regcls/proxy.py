"""Proxies of the environment (http_proxy, ALL_PROXY …), which also get the requests to servers nearby unless NO_PROXY names these."""

import os
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost")


def proxy_hint(url: str) -> str:
    """A sentence, after a space, on the proxy that requests to `url` go through, and how to avoid it; empty if there is none."""
    from requests.utils import get_environ_proxies, select_proxy  # here: only errors need it

    if not (proxy := select_proxy(url, get_environ_proxies(url, no_proxy=None))):
        return ""
    host = urlsplit(url).hostname or ""
    name = "no_proxy" if os.environ.get("no_proxy") else "NO_PROXY"  # the first hides the other
    hosts = dict.fromkeys([*filter(None, os.environ.get(name, "").replace(" ", "").split(",")), *LOOPBACK, host])
    return f" A proxy is set, {proxy.rpartition('@')[2]}: to reach {host} without it, export {name}={','.join(hosts)}"
