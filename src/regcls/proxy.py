"""Proxies of the environment (http_proxy, ALL_PROXY …), which also get the requests to servers nearby unless NO_PROXY names these."""

import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

LOOPBACK = ("127.0.0.1", "localhost")


def proxy_hint(url: str) -> str:
    """A sentence, after a space, on the proxy that requests to `url` go through, and how to avoid it; empty if there is none."""
    target, proxies = urlsplit(url), getproxies()
    proxy, host = proxies.get(target.scheme) or proxies.get("all"), target.hostname or ""
    if not proxy or proxy_bypass(target.netloc.rpartition("@")[2]):
        return ""
    name = "no_proxy" if os.environ.get("no_proxy") else "NO_PROXY"  # the first hides the other
    hosts = dict.fromkeys([*filter(None, os.environ.get(name, "").split(",")), *LOOPBACK, host])
    return f" A proxy is set, {proxy.rpartition('@')[2]}: to reach {host} without it, export {name}={','.join(hosts)}"
