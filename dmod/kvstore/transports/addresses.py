"""At which addresses a node listens: a named one, and on this host only unless told otherwise."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator

from dmod.base import InvalidArgument
from dmod.config import Settings
from dmod.kvstore.messages import Member

__all__ = ["interface_address", "listen_host", "scheduler_address", "tcp_address", "usable_addresses"]

_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


def tcp_address(host: str, port: int) -> str:
    """ZeroMQ's form of a host and a port."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def scheduler_address(settings: Settings) -> str:
    """Where the scheduler listens, as `DMLC_PS_ROOT_URI` and `DMLC_PS_ROOT_PORT` say.

    Raises
    ------
    InvalidArgument
        One of the two is missing, or the address is not one of this host and that is not permitted.
    """
    for name, value in (("DMLC_PS_ROOT_URI", settings.root_uri), ("DMLC_PS_ROOT_PORT", settings.root_port)):
        if not value:
            raise InvalidArgument(
                f"{name} is not set: it says where the scheduler listens; "
                "dmod-launch -n WORKERS -s SERVERS -- COMMAND sets it for all processes of a job"
            )
    if not settings.root_port <= 65535:
        raise InvalidArgument(f"DMLC_PS_ROOT_PORT={settings.root_port}: expected a port, 1 to 65535")
    host = _permitted("DMLC_PS_ROOT_URI", settings.root_uri, settings)
    return tcp_address(host, settings.root_port)


def usable_addresses(server: Member, host: str, transport: str) -> Iterator[str]:
    """Where a worker on `host` can reach a server, the fastest first.

    Parameters
    ----------
    server : Member
    host : str
        The worker's host.
    transport : str
        As `DMOD_TRANSPORT` says.
    """
    for address in server.addresses:
        scheme, _, path = address.partition("://")
        if scheme in ("shm", "ipc"):
            if transport in ("auto", scheme) and server.host == host and os.path.exists(path):
                yield address
        elif transport in ("auto", scheme) or scheme == "inproc":
            yield address


def listen_host(settings: Settings) -> str:
    """The address at which a server listens.

    It is `DMLC_NODE_HOST` if that is set, or the address of the interface `DMLC_INTERFACE`, or the
    address of this host that reaches the scheduler.
    """
    if settings.node_host:
        return _permitted("DMLC_NODE_HOST", settings.node_host, settings)
    if settings.interface:
        return _permitted("DMLC_INTERFACE", interface_address(settings.interface), settings)
    root = _resolve("DMLC_PS_ROOT_URI", settings.root_uri)
    if ipaddress.ip_address(root).is_loopback:
        return root
    family = socket.AF_INET6 if ":" in root else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:  # sends nothing: it asks for the route only
        probe.connect((root, settings.root_port))
        return _permitted("this host's address", str(probe.getsockname()[0]), settings)


def _permitted(what: str, host: str, settings: Settings) -> str:
    address = ipaddress.ip_address(_resolve(what, host))
    if address.is_unspecified:
        raise InvalidArgument(f"{what}={host}: that is every interface at once; name the address of one")
    if not address.is_loopback and not settings.insecure_network:
        raise InvalidArgument(
            f"{what}={host} can be reached from other hosts, and whoever reaches it could join the job: "
            "there is no authentication yet. In a network that you trust, pass --insecure-network to "
            "dmod-launch, or set DMOD_INSECURE_NETWORK=1"
        )
    return str(address)


def _resolve(what: str, host: str) -> str:
    if host == "*":
        raise InvalidArgument(f"{what}=*: that is every interface at once; name the address of one")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InvalidArgument(f"{what}={host}: no such host: {error.strerror}") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)  # a name with both kinds: IPv4, as in MXNet
    return str(found[0][4][0])


def interface_address(interface: str) -> str:
    """The IPv4 address of a network interface of this host.

    Raises
    ------
    InvalidArgument
        There is none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("256s", interface.encode()[:15])
        try:
            reply = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        except OSError as error:
            raise InvalidArgument(
                f"DMLC_INTERFACE={interface}: no IPv4 address: {str(error.strerror).lower()}"
            ) from None
    return socket.inet_ntoa(reply[20:24])
