"""Who else has a say in what this host passes on: another table, of nftables or of the older iptables, whose policy at
the forward hook is to drop. A packet goes on only if all tables let it; so what leaves a network, and what comes in, is
lost there unless that table accepts it, for which no rule of ours can do. Nobody's table is changed: it is looked at.

nft(8), "Verdict statements"; include/uapi/linux/netfilter/nf_tables.h and netfilter_ipv4/ip_tables.h
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from runtime import linux
from runtime.network.conversation import NETFILTER, NETFILTER_HEADER, Conversation, attributes, of_netfilter
from runtime.network.links import PREFIX
from runtime.network.messages import DUMP, REQUEST

_GET_CHAIN, _GET_RULE = 10 << 8 | 4, 10 << 8 | 7  # NFNL_SUBSYS_NFTABLES: NFT_MSG_GETCHAIN, NFT_MSG_GETRULE
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _RULE_TABLE = 1, 3, 4, 5, 1  # NFTA_*
_HOOK_NUMBER, _FORWARD = 1, 2  # NFTA_HOOK_HOOKNUM, NF_INET_FORWARD
_DROP = 0  # NF_DROP
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}  # NFPROTO_*

_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_*, IP6T_SO_*
# struct ipt_getinfo: name, hooks, their first entries, their policies, count, size
_INFO = struct.Struct("=32sI5I5III")
_QUESTION = struct.Struct("=32sI4x")  # struct ipt_get_entries, without the entries
_VERDICT_DROP = -_DROP - 1  # of struct xt_standard_target
_TARGET_BYTES = 32  # struct xt_entry_target
# By file of /proc/net: who reads it, socket, level, where struct ipt_entry has the offset of its target.
_OLDER = {
    "ip_tables_names": ("iptables-legacy", socket.AF_INET, socket.IPPROTO_IP, 88),
    "ip6_tables_names": ("ip6tables-legacy", socket.AF_INET6, socket.IPPROTO_IPV6, 140),
}


def obstacles() -> list[str]:
    """Where what a network's containers send out is dropped, each as a command that shows it. OSError."""
    return [*_of_nftables(), *_of_iptables()]


def _of_nftables() -> Iterator[str]:
    """A table that speaks of our interfaces has been taught about them."""
    with closing(Conversation(NETFILTER)) as conversation:
        for family, word in _FAMILIES.items():
            taught = {table for table, rule in _rules(conversation, family) if PREFIX.encode() in rule}
            for answer in conversation.dump(of_netfilter(_GET_CHAIN, REQUEST | DUMP, family)):
                chain = dict(attributes(answer[NETFILTER_HEADER.size :]))
                if _drops(chain) and chain[_CHAIN_TABLE] not in taught:
                    yield f"nft list chain {word} {_text(chain[_CHAIN_TABLE])} {_text(chain[_CHAIN_NAME])}"


def _rules(conversation: Conversation, family: int) -> Iterator[tuple[bytes, bytes]]:
    """Of each: its table, and all of it."""
    for answer in conversation.dump(of_netfilter(_GET_RULE, REQUEST | DUMP, family)):
        yield dict(attributes(answer[NETFILTER_HEADER.size :]))[_RULE_TABLE], answer


def _drops(chain: dict[int, bytes]) -> bool:
    hook = dict(attributes(chain.get(_CHAIN_HOOK, b"")))
    return _number(hook.get(_HOOK_NUMBER)) == _FORWARD and _number(chain.get(_CHAIN_POLICY)) == _DROP


def _number(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value, "big")


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="backslashreplace")


def _of_iptables() -> Iterator[str]:
    """Only where its table is there: to ask for it would make it."""
    for file, (command, family, level, target_at) in _OLDER.items():
        path = Path("/proc/net") / file
        if path.exists() and "filter" in path.read_text(encoding="ascii").split():
            with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as asking:
                entries, policy = _entries(asking.fileno(), level)
            (target,) = struct.unpack_from("=H", entries, policy + target_at)
            (verdict,) = struct.unpack_from("=i", entries, policy + target + _TARGET_BYTES)
            if verdict == _VERDICT_DROP and PREFIX.encode() not in entries:
                yield f"{command} -S FORWARD"


def _entries(descriptor: int, level: int) -> tuple[bytes, int]:
    """All of the table, and where in it the forward hook's policy is."""
    info = bytearray(_INFO.pack(b"filter", *[0] * 13))
    linux.getsockopt(descriptor, level, _GET_INFO, info)
    _, _, *offsets, _, size = _INFO.unpack(info)
    answer = bytearray(_QUESTION.pack(b"filter", size)) + bytearray(size)
    linux.getsockopt(descriptor, level, _GET_ENTRIES, answer)
    return bytes(answer[_QUESTION.size :]), offsets[5 + _FORWARD]
