"""What is said to the kernel's network: netlink messages as bytes, encoded by pyroute2.

Only its message classes are used. Its sockets run an event loop of their own in each call, and open three descriptors
for that; here a conversation (conversation.py) is one socket, in a thread that may wait. Its table of nftables' fib
expression is wrong (results are numbers there, not flags): see `_ADDRESS_TYPE`.

Loading this costs about 85 ms and 14 MB beside the supervisor: only a stack that has a network of its own does.
"""

import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any

from pyroute2.netlink.nfnetlink import nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import nft_chain_msg, nft_rule_msg, nft_table_msg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

Interface = IPv4Interface | IPv6Interface
Attributes = Sequence[tuple[str, Any]]
Expression = tuple[str, tuple[tuple[str, Any], ...]]

REQUEST, ACK, DUMP, REPLACE, EXCLUSIVE, CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
APPEND = 0x800
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
IFF_UP = 1
IFA_F_NODAD = 0x02
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1
ADDR_GEN_MODE_NONE = 1

NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE = 0, 2
NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE = 3, 6
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
NFPROTO_INET = 1
NFT_TABLE_F_OWNER = 2  # the table goes with the socket that made it, and nobody else may change it

_REG_1, _REG_2, _VERDICT = 1, 2, 0
_EQ, _NEQ = 0, 1


def _encoded(message: Any, kind: int, flags: int, attributes: Attributes = ()) -> bytes:
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data)


# --- links, addresses, routes: rtnetlink(7) --------------------------------------------------------------------------


def bridge(name: str, mac: str, group: int) -> bytes:
    """A new bridge. Its hardware address is its own: else it would change with what is joined to it."""
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_GROUP", group),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
    ]
    return _link(attributes, RTM_NEWLINK, CREATE | EXCLUSIVE, 0)


def veth(name: str, master: int, group: int, peer: str, mac: str, namespace: int) -> bytes:
    """A new pair of interfaces, one in the bridge `master`, the other in a namespace, given by a descriptor.

    The encoding of this takes longer than what the kernel does with it, and is much the same for all: it is done once.
    """
    template = _veth(len(name), peer)
    for placeholder, value in (
        (_name(len(name)), name.encode()),
        (_MAC_BYTES, bytes.fromhex(mac.replace(":", ""))),
        *(
            (number.to_bytes(4, sys.byteorder), value.to_bytes(4, sys.byteorder))
            for number, value in ((_MASTER, master), (_GROUP, group), (_NAMESPACE, namespace))
        ),
    ):
        template = template.replace(placeholder, value)
    return template


_MASTER, _GROUP, _NAMESPACE = 0x7E5D_3C11, 0x7E5D_3C22, 0x7E5D_3C33
_MAC = "7a:5d:3c:44:55:66"
_MAC_BYTES = bytes.fromhex(_MAC.replace(":", ""))
# Else the kernel makes one for each processor, takes all but one away again, and waits for all processors each time,
# with everybody's lock held (veth_init_queues, netif_set_real_num_tx_queues): milliseconds on a busy host.
_ONE_QUEUE = (("IFLA_NUM_TX_QUEUES", 1), ("IFLA_NUM_RX_QUEUES", 1))
_NO_LINK_LOCAL = (
    "IFLA_AF_SPEC",
    {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_MODE_NONE)]})]},
)


def _name(length: int) -> bytes:
    return b"\x7f" * length


@lru_cache(maxsize=64)
def _veth(length: int, peer: str) -> bytes:
    other = {"attrs": [("IFLA_IFNAME", peer), ("IFLA_ADDRESS", _MAC), ("IFLA_NET_NS_FD", _NAMESPACE), *_ONE_QUEUE]}
    data = {"attrs": [("VETH_INFO_PEER", other)]}
    attributes = [
        ("IFLA_IFNAME", _name(length).decode()),
        ("IFLA_MASTER", _MASTER),
        ("IFLA_GROUP", _GROUP),
        *_ONE_QUEUE,
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}),
    ]
    return _link(attributes, RTM_NEWLINK, CREATE | EXCLUSIVE, 0)


def quietly_up(name: str, *, hairpin: bool = False) -> bytes:
    """An interface goes up, and gives itself no IPv6 address: only those of the network's own are wanted on the host.
    (The kernel takes no IFLA_AF_SPEC where it makes a link: EAFNOSUPPORT.)

    With `hairpin` its bridge sends back by it what came by it: where the packet filter sees bridged packets
    (br_netfilter), a container that asks for its own published port is led back there.
    """
    return _quietly_up(len(name), hairpin).replace(_name(len(name)), name.encode())


@lru_cache(maxsize=64)
def _quietly_up(length: int, hairpin: bool) -> bytes:
    attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", _name(length).decode()), _NO_LINK_LOCAL]
    if hairpin:
        port = {"attrs": [("IFLA_BRPORT_MODE", 1)]}
        of_a_bridge = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", port)]
        attributes.append(("IFLA_LINKINFO", {"attrs": of_a_bridge}))
    return _link(attributes, RTM_NEWLINK, 0, IFF_UP)


@lru_cache(maxsize=8)
def up(index: int) -> bytes:
    """An interface that is there goes up."""
    return _link([], RTM_NEWLINK, 0, IFF_UP, index)


def _link(attributes: Attributes, kind: int, flags: int, state: int, index: int = 0) -> bytes:
    message = ifinfmsg()
    message["index"] = index
    message["flags"] = message["change"] = state
    return _encoded(message, kind, REQUEST | ACK | flags, attributes)


def without_group(group: int) -> bytes:
    """All links of a group go, at once: one at a time each would wait for all processors (synchronize_net)."""
    return _encoded(ifinfmsg(), RTM_DELLINK, REQUEST | ACK, [("IFLA_GROUP", group)])


def without_link(index: int) -> bytes:
    """One link goes, and its other end."""
    message = ifinfmsg()
    message["index"] = index
    return _encoded(message, RTM_DELLINK, REQUEST | ACK)


def address(index: int, interface: Interface) -> bytes:
    """An address of an interface, at once usable: nobody else can have it."""
    template = _address(interface.version, interface.network.prefixlen)
    template = template.replace(_PLACEHOLDERS[interface.version].packed, interface.ip.packed)
    if interface.version == 4:
        template = template.replace(_BROADCAST.packed, interface.network.broadcast_address.packed)
    return template[:_INDEX] + index.to_bytes(4, sys.byteorder) + template[_INDEX + 4 :]


_PLACEHOLDERS = {4: ip_address("250.251.252.253"), 6: ip_address("fdfe:f1f2:f3f4:f5f6:f7f8:f9fa:fbfc:fdff")}
_BROADCAST = ip_address("250.251.253.254")
_INDEX = 20  # where an address's message has that of its interface


@lru_cache(maxsize=64)
def _address(version: int, length: int) -> bytes:
    """Encoded once: all of a network are alike, and this takes longer than the kernel does."""
    message, placeholder = ifaddrmsg(), str(_PLACEHOLDERS[version])
    message["family"] = _family(version)
    message["prefixlen"] = length
    attributes: list[tuple[str, Any]] = [("IFA_LOCAL", placeholder), ("IFA_ADDRESS", placeholder)]
    attributes.append(("IFA_FLAGS", IFA_F_NODAD) if version == 6 else ("IFA_BROADCAST", str(_BROADCAST)))
    return _encoded(message, RTM_NEWADDR, REQUEST | ACK | CREATE | REPLACE, attributes)


@lru_cache(maxsize=256)
def default_route(gateway: str) -> bytes:
    """By which all else is reached."""
    message = rtmsg()
    message["family"] = _family(ip_address(gateway).version)
    message["table"], message["proto"], message["type"] = RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST
    return _encoded(message, RTM_NEWROUTE, REQUEST | ACK | CREATE | REPLACE, [("RTA_GATEWAY", gateway)])


def _family(version: int) -> int:
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def all_links() -> bytes:
    return _encoded(ifinfmsg(), RTM_GETLINK, REQUEST | DUMP)


def all_routes() -> bytes:
    return _encoded(rtmsg(), RTM_GETROUTE, REQUEST | DUMP)


def all_addresses() -> bytes:
    return _encoded(ifaddrmsg(), RTM_GETADDR, REQUEST | DUMP)


def links(answers: Iterable[bytes]) -> list[tuple[int, str, int]]:
    """(index, name, group) of each."""
    return [
        (message["index"], message.get_attr("IFLA_IFNAME") or "", message.get_attr("IFLA_GROUP") or 0)
        for message in map(_decoder(ifinfmsg), answers)
    ]


def taken(routes: Iterable[bytes], addresses: Iterable[bytes]) -> list[str]:
    """The subnets that this host knows a way to, but for the ways to everywhere."""
    ways = map(_decoder(rtmsg), routes)
    found = [
        f"{way.get_attr('RTA_DST')}/{way['dst_len']}" for way in ways if way["dst_len"] and way.get_attr("RTA_DST")
    ]
    for message in map(_decoder(ifaddrmsg), addresses):
        local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        found.append(str(ip_interface(f"{local}/{message['prefixlen']}").network))
    return found


def _decoder(kind: Any) -> Any:
    def decode(answer: bytes) -> Any:
        message = kind(answer)
        message.decode()
        return message

    return decode


# --- packet filter: nftables -----------------------------------------------------------------------------------------


def batch(messages: Iterable[bytes]) -> list[bytes]:
    """All of it happens, or nothing."""
    return [_border(NFNL_MSG_BATCH_BEGIN), *messages, _border(NFNL_MSG_BATCH_END)]


def _border(kind: int) -> bytes:
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    return _encoded(message, kind, REQUEST)


def table(name: str, *, owned: bool = True) -> bytes:
    """It is there, whether it was before or not."""
    flags = NFT_TABLE_F_OWNER if owned else 0
    return _nft(nft_table_msg(), NFT_MSG_NEWTABLE, CREATE, [("NFTA_TABLE_NAME", name), ("NFTA_TABLE_FLAGS", flags)])


def without_table(name: str) -> bytes:
    return _nft(nft_table_msg(), NFT_MSG_DELTABLE, 0, [("NFTA_TABLE_NAME", name)])


def chain(table: str, name: str, kind: str, hook: int, priority: int) -> bytes:
    """A base chain: `kind` is nat or filter, `hook` one of NF_INET_*."""
    attributes = [
        ("NFTA_CHAIN_TABLE", table),
        ("NFTA_CHAIN_NAME", name),
        ("NFTA_CHAIN_HOOK", {"attrs": [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]}),
        ("NFTA_CHAIN_TYPE", kind),
    ]
    return _nft(nft_chain_msg(), NFT_MSG_NEWCHAIN, CREATE, attributes)


def rule(table: str, chain: str, expressions: Iterable[Expression]) -> bytes:
    """A rule behind those that the chain has."""
    attributes = [
        ("NFTA_RULE_TABLE", table),
        ("NFTA_RULE_CHAIN", chain),
        ("NFTA_RULE_EXPRESSIONS", [_expression(*each) for each in expressions]),
    ]
    return _nft(nft_rule_msg(), NFT_MSG_NEWRULE, CREATE | APPEND, attributes)


def _nft(message: Any, kind: int, flags: int, attributes: Attributes) -> bytes:
    message["nfgen_family"] = NFPROTO_INET
    return _encoded(message, NFNL_SUBSYS_NFTABLES << 8 | kind, REQUEST | ACK | flags, attributes)


def _expression(name: str, values: tuple[tuple[str, Any], ...]) -> Mapping[str, Any]:
    data = [(f"NFTA_{name.upper()}_{key}", value) for key, value in values]
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": data})]}


META_L4PROTO, META_NFPROTO, META_IIFNAME, META_OIFNAME = 16, 15, 6, 7
CT_STATE, CT_STATUS = 0, 2
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
# Of enum nft_fib_result it is number 3; pyroute2 takes its members for bits, of which the first two make 3.
_ADDRESS_TYPE = ("NFT_FIB_RESULT_UNSPEC", "NFT_FIB_RESULT_OIF")
_FIB_DADDR = 1 << 1
RTN_LOCAL = 2


def meta(key: int) -> Expression:
    """Load what is known of the packet."""
    return "meta", (("DREG", _REG_1), ("KEY", key))


def payload(base: int, offset: int, length: int) -> Expression:
    """Load a part of its headers."""
    return "payload", (("DREG", _REG_1), ("BASE", base), ("OFFSET", offset), ("LEN", length))


def connection(key: int) -> Expression:
    """Load what is known of its connection."""
    return "ct", (("DREG", _REG_1), ("KEY", key))


def destination_type() -> Expression:
    """Load whether its destination is ours: RTN_LOCAL."""
    return "fib", (("DREG", _REG_1), ("RESULT", _ADDRESS_TYPE), ("FLAGS", _FIB_DADDR))


def masked(mask: bytes) -> Expression:
    """Of what was loaded, these bits."""
    return "bitwise", (
        ("SREG", _REG_1),
        ("DREG", _REG_1),
        ("LEN", len(mask)),
        ("MASK", _value(mask)),
        ("XOR", _value(bytes(len(mask)))),
    )


def equals(value: bytes) -> Expression:
    """Go on with the rule only if what was loaded is this."""
    return "cmp", (("SREG", _REG_1), ("OP", _EQ), ("DATA", _value(value)))


def differs(value: bytes) -> Expression:
    return "cmp", (("SREG", _REG_1), ("OP", _NEQ), ("DATA", _value(value)))


def verdict(code: int) -> Expression:
    """DROP or ACCEPT: the last word of the chain."""
    decision = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": [("NFTA_VERDICT_CODE", code)]})]}
    return "immediate", (("DREG", _VERDICT), ("DATA", decision))


DROP, ACCEPT = 0, 1


def destined(to: str, port: int | None) -> tuple[Expression, ...]:
    """From now on the connection goes to this address, and port."""
    there = ip_address(to)
    family = 10 if there.version == 6 else 2  # NFPROTO_IPV6, NFPROTO_IPV4
    loads: list[Expression] = [("immediate", (("DREG", _REG_1), ("DATA", _value(there.packed))))]
    values: list[tuple[str, Any]] = [("TYPE", 1), ("FAMILY", family), ("REG_ADDR_MIN", _REG_1)]
    if port is not None:
        loads.append(("immediate", (("DREG", _REG_2), ("DATA", _value(port.to_bytes(2, "big"))))))
        values.append(("REG_PROTO_MIN", _REG_2))
    return (*loads, ("nat", tuple(values)))


def masqueraded() -> Expression:
    """From now on the connection seems to come from the host."""
    return "masq", ()


def _value(data: bytes) -> Mapping[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", data)]}
