"""What the kernel remembers of connections (conntrack): those that lead to an address are forgotten when nobody is to
be led there any more. One of UDP has no end of its own: a client that goes on sending would go on being led there.

include/uapi/linux/netfilter/nfnetlink_conntrack.h
"""

import errno
import struct
from contextlib import closing
from ipaddress import ip_address
from socket import AF_INET, AF_INET6

from runtime.network.conversation import (
    NETFILTER,
    NETFILTER_HEADER,
    Conversation,
    attribute,
    attributes,
    of_netfilter,
)
from runtime.network.messages import ACK, DUMP, REQUEST

UDP = 17
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK: IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25  # CTA_*
_IP, _PROTOCOL = 1, 2  # CTA_TUPLE_*
_NUMBER = 1  # CTA_PROTO_NUM
_SOURCE = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_FAMILY = {4: AF_INET, 6: AF_INET6}
_FILTER_ORIGINAL, _FILTER_REPLY = 1, 2  # CTA_FILTER_*_FLAGS
_BY_SOURCE = 1 << 0  # CTA_FILTER_F_CTA_IP_SRC
_NESTED = 0x8000  # NLA_F_NESTED


def forget(address: str, protocol: int = UDP) -> int:
    """Forget the connections to this address; returns how many there were. OSError."""
    version = ip_address(address).version
    with closing(Conversation(NETFILTER)) as conversation:
        found = [each for each in _all(conversation, address) if _leads_to(each, address, protocol)]
        return sum(_forgotten(conversation, version, each) for each in found)


def _all(conversation: Conversation, address: str) -> list[dict[int, bytes]]:
    """Those of whom the answers come from there. Before Linux 5.8 the kernel tells of all of its kind."""
    version = ip_address(address).version
    source = attribute(_IP | _NESTED, attribute(_SOURCE[version], ip_address(address).packed))
    wanted = attribute(_FILTER_ORIGINAL, struct.pack("=I", 0)) + attribute(_FILTER_REPLY, struct.pack("=I", _BY_SOURCE))
    body = attribute(_REPLY | _NESTED, source) + attribute(_FILTER | _NESTED, wanted)
    answers = conversation.dump(of_netfilter(_GET, REQUEST | DUMP, _FAMILY[version], body))
    return [dict(attributes(answer[NETFILTER_HEADER.size :])) for answer in answers]


def _leads_to(one: dict[int, bytes], address: str, protocol: int) -> bool:
    reply = dict(attributes(one.get(_REPLY, b"")))
    source = dict(attributes(reply.get(_IP, b""))).get(_SOURCE[ip_address(address).version])
    number = dict(attributes(reply.get(_PROTOCOL, b""))).get(_NUMBER)
    return source == ip_address(address).packed and number == bytes([protocol])


def _forgotten(conversation: Conversation, version: int, one: dict[int, bytes]) -> bool:
    """Not if it has ended by itself."""
    body = attribute(_ORIGINAL | _NESTED, one[_ORIGINAL])
    body += b"".join(attribute(each, one[each]) for each in (_ZONE, _ID) if each in one)
    try:
        conversation.do([("forget a connection", of_netfilter(_DELETE, REQUEST | ACK, _FAMILY[version], body))])
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True
