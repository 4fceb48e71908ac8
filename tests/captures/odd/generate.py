#!/usr/bin/env python3
"""Writes the odd captures beside this file: frames that are legal but rare, or broken in one known way.

Standard library only; the same bytes every time. Run it after a change and commit what it writes.
Addresses are those kept for documentation (RFC 5737, RFC 3849, RFC 7042).
"""

import ipaddress
import pathlib
import struct

ETHERNET, RAW = 1, 101
IPV4, IPV6, ARP, VLAN, SERVICE_VLAN, OLD_QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x9100
ICMP, IGMP, TCP, UDP, DCCP, GRE, ESP, AH, ICMPV6, OSPF, SCTP, UDPLITE = 1, 2, 6, 17, 33, 47, 50, 51, 58, 89, 132, 136
HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT, DESTINATION, MOBILITY, HIP, SHIM6 = 0, 43, 44, 59, 60, 135, 139, 140

CLIENT, SERVER, ROUTER = "192.0.2.1", "198.51.100.7", "203.0.113.254"
CLIENT6, SERVER6, ROUTER6 = "2001:db8::1", "2001:db8:1::7", "2001:db8:ffff::fe"
DONT, MORE = 0x4000, 0x2000


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def address(text):
    return ipaddress.ip_address(text).packed


def pseudo(source, destination, protocol, length):
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, protocol, length)
    return source + destination + struct.pack("!IHBB", length, 0, 0, protocol)


def ethernet(ethertype, payload, tags=(), pad=True):
    frame = bytes.fromhex("00005e005301") + bytes.fromhex("00005e005302")
    for kind, tag in tags:
        frame += struct.pack("!HH", kind, tag)
    frame += struct.pack("!H", ethertype) + payload
    return frame.ljust(60, b"\0") if pad else frame


def ipv4(protocol, payload, source=CLIENT, destination=SERVER, options=b"", fragment=DONT, tos=0, ttl=64,
         identification=1, total=None, first=None):
    words = 5 + len(options) // 4
    total = words * 4 + len(payload) if total is None else total
    first = 0x40 | words if first is None else first
    header = struct.pack("!BBHHHBBH", first, tos, total, identification, fragment, ttl, protocol, 0)
    header += address(source) + address(destination) + options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def ipv6(next_header, payload, source=CLIENT6, destination=SERVER6, traffic_class=0, hop_limit=64, length=None,
         version=6):
    length = len(payload) if length is None else length
    first = version << 28 | traffic_class << 20
    return struct.pack("!IHBB", first, length, next_header, hop_limit) + address(source) + address(destination) + payload


def tcp(source_port, destination_port, flags, ends=(CLIENT, SERVER), options=b"", payload=b"", words=None):
    words = 5 + len(options) // 4 if words is None else words
    header = struct.pack("!HHIIHHHH", source_port, destination_port, 1000, 2000, words << 12 | flags, 64240, 0, 0)
    segment = header + options + payload
    total = checksum(pseudo(address(ends[0]), address(ends[1]), TCP, len(segment)) + segment)
    return segment[:16] + struct.pack("!H", total) + segment[18:]


def udp(source_port, destination_port, payload=b"", ends=(CLIENT, SERVER), protocol=UDP):
    header = struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0)
    total = checksum(pseudo(address(ends[0]), address(ends[1]), protocol, len(header + payload)) + header + payload)
    return header[:6] + struct.pack("!H", total or 0xFFFF) + payload


def icmp(kind, code, rest=b"\0\1\0\1", payload=b"weir"):
    message = struct.pack("!BBH", kind, code, 0) + rest + payload
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def icmpv6(kind, code, rest=b"\0\1\0\1", payload=b"weir", ends=(CLIENT6, SERVER6)):
    message = struct.pack("!BBH", kind, code, 0) + rest + payload
    total = checksum(pseudo(address(ends[0]), address(ends[1]), ICMPV6, len(message)) + message)
    return message[:2] + struct.pack("!H", total) + message[4:]


def options(next_header, payload, size=8):
    """Hop-by-hop or destination options, padded (RFC 8200 4.2), before what they announce."""
    return struct.pack("!BBBB", next_header, size // 8 - 1, 1, size - 4).ljust(size, b"\0") + payload


def fragment(next_header, offset, more, payload):
    return struct.pack("!BBHI", next_header, 0, offset << 3 | more, 0x5EED) + payload


def authentication(next_header, payload):
    """RFC 4302 2, with a check value of 12 bytes."""
    return struct.pack("!BBHII", next_header, 4, 0, 0x100, 1) + b"\xaa" * 12 + payload


V6 = (CLIENT6, SERVER6)
UDP4 = udp(40000, 9, b"discard!")
UDP6 = udp(40000, 9, b"discard!", V6)
TCP4 = tcp(50000, 443, 0x018, payload=b"hello")
TCP6 = tcp(50000, 443, 0x018, V6, payload=b"hello")


def ipv4_options():
    router_alert, record_route = b"\x94\4\0\0", b"\7\x0b\4" + bytes(8) + b"\0"
    timestamp = b"\x44\x0c\5\0" + bytes(8)
    loose = b"\x83\7\x08" + address(ROUTER) + b"\0"  # its end reached: tshark would name the next hop
    for words in (router_alert, record_route, timestamp, loose, b"\1" * 4, b"\1" * 40):
        yield ethernet(IPV4, ipv4(TCP, TCP4, options=words))
        yield ethernet(IPV4, ipv4(UDP, UDP4, options=words, tos=0xB8))


def ipv4_fragments():
    datagram = udp(40001, 5000, bytes(range(256)) * 4)
    yield ethernet(IPV4, ipv4(UDP, datagram[:512], fragment=MORE, identification=7))
    yield ethernet(IPV4, ipv4(UDP, datagram[512:1024], fragment=MORE | 64, identification=7))
    yield ethernet(IPV4, ipv4(UDP, datagram[1024:], fragment=128, identification=7))
    # Out of order, and the first one so small that it ends within the TCP header (RFC 1858).
    segment = tcp(50001, 80, 0x002)
    yield ethernet(IPV4, ipv4(TCP, segment[8:], fragment=1, identification=8))
    yield ethernet(IPV4, ipv4(TCP, segment[:8], fragment=MORE, identification=8))
    yield ethernet(IPV4, ipv4(ICMP, icmp(8, 0, payload=bytes(1472))[:1480], fragment=MORE, identification=9))
    yield ethernet(IPV4, ipv4(ICMP, bytes(64), fragment=185, identification=9))
    # The reserved bit (RFC 3514) does not make a fragment.
    yield ethernet(IPV4, ipv4(UDP, UDP4, fragment=0x8000 | DONT))


def ipv6_fragments():
    datagram = udp(40002, 5001, bytes(range(256)) * 4, V6)
    yield ethernet(IPV6, ipv6(FRAGMENT, fragment(UDP, 0, 1, datagram[:512])))
    yield ethernet(IPV6, ipv6(FRAGMENT, fragment(UDP, 64, 1, datagram[512:1024])))
    yield ethernet(IPV6, ipv6(FRAGMENT, fragment(UDP, 128, 0, datagram[1024:])))
    # Whole, although it has a fragment header (RFC 6946).
    yield ethernet(IPV6, ipv6(FRAGMENT, fragment(UDP, 0, 0, UDP6)))
    yield ethernet(IPV6, ipv6(HOP_BY_HOP, options(FRAGMENT, fragment(TCP, 0, 1, TCP6[:24]))))
    yield ethernet(IPV6, ipv6(HOP_BY_HOP, options(FRAGMENT, fragment(TCP, 3, 0, bytes(16)))))
    # The fragmented part starts with destination options.
    part = options(UDP, UDP6)
    yield ethernet(IPV6, ipv6(FRAGMENT, fragment(DESTINATION, 0, 1, part[:24])))
    yield ethernet(IPV6, ipv6(FRAGMENT, fragment(DESTINATION, 3, 0, part[24:])))


def vlan():
    for ethertype, packet in ((IPV4, ipv4(UDP, UDP4)), (IPV6, ipv6(TCP, TCP6))):
        for tags in (
            [(VLAN, 100)],
            [(VLAN, 0xE000)],
            [(VLAN, 0x0FFF)],
            [(VLAN, 200), (VLAN, 100)],
            [(SERVICE_VLAN, 200), (VLAN, 100)],
            [(OLD_QINQ, 200), (VLAN, 100)],
            [(SERVICE_VLAN, 3), (VLAN, 2), (VLAN, 1)],
            [(SERVICE_VLAN, 4), (SERVICE_VLAN, 3), (VLAN, 2), (VLAN, 1)],
        ):
            yield ethernet(ethertype, packet, tags)
    yield ethernet(ARP, arp(1), [(VLAN, 100)])
    # One tag too many.
    yield ethernet(IPV4, ipv4(UDP, UDP4), [(VLAN, 5), (VLAN, 4), (VLAN, 3), (VLAN, 2), (VLAN, 1)])


def arp(operation):
    header = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return header + bytes.fromhex("00005e005302") + address(CLIENT) + bytes(6) + address(SERVER)


def non_ip():
    yield ethernet(ARP, arp(1))
    yield ethernet(ARP, arp(2))
    # LLDP: chassis, port, time to live, end (IEEE 802.1AB 8).
    yield ethernet(0x88CC, bytes.fromhex("02070400005e005302" "04020761" "06020078" "0000"))
    # PPPoE discovery (PADI) and a session that carries IPv4 (RFC 2516).
    yield ethernet(0x8863, bytes.fromhex("110900000004" "01010000"))
    packet = ipv4(UDP, UDP4)
    yield ethernet(0x8864, struct.pack("!BBHHH", 0x11, 0, 1, len(packet) + 2, 0x0021) + packet)
    # MPLS, one label and two, IPv4 inside (RFC 3032).
    yield ethernet(0x8847, struct.pack("!I", 1000 << 12 | 0x100 | 64) + packet)
    yield ethernet(0x8847, struct.pack("!II", 1000 << 12 | 64, 1001 << 12 | 0x100 | 64) + packet)
    # Spanning tree in an 802.3 frame, whose type field is a length.
    yield ethernet(38, bytes.fromhex("424203") + bytes(35))
    # IPv4 in 802.3 with SNAP (RFC 1042), which no kernel of ours reads either.
    yield ethernet(8 + len(packet), bytes.fromhex("aaaa030000000800") + packet)
    yield ethernet(0x88B5, b"local experiment")
    yield ethernet(0x9000, bytes(46))


def ipv6_extensions():
    for kind in (HOP_BY_HOP, ROUTING, DESTINATION, MOBILITY, HIP, SHIM6):
        header = struct.pack("!BBBB", UDP, 2, 0, 0) + bytes(20)
        if kind in (HOP_BY_HOP, DESTINATION):
            header = options(UDP, b"", 24)
        if kind in (MOBILITY, HIP):
            # Messages of their own, before nothing (RFC 6275 6.1.1, RFC 7401 5.1).
            yield ethernet(IPV6, ipv6(kind, struct.pack("!BBBB", NO_NEXT, 4, 0, 0) + bytes(36)))
            continue
        if kind == SHIM6:
            header = struct.pack("!BBBBI", UDP, 0, 0x80, 0, 1)  # payload extension, RFC 5533 5.2
        if kind == ROUTING:
            header = struct.pack("!BBBBI", UDP, 2, 2, 0, 0) + address(ROUTER6)
        yield ethernet(IPV6, ipv6(kind, header + UDP6))
    yield ethernet(IPV6, ipv6(AH, authentication(TCP, TCP6)))
    # The order that RFC 8200 4.1 recommends.
    packet = authentication(DESTINATION, options(TCP, TCP6))
    packet = fragment(AH, 0, 0, packet)
    packet = struct.pack("!BBBBI", FRAGMENT, 0, 253, 0, 0) + packet
    packet = options(DESTINATION, options(ROUTING, packet))
    yield ethernet(IPV6, ipv6(HOP_BY_HOP, packet))
    # Multicast listener report behind a router alert (RFC 2710 3).
    report = icmpv6(131, 0, bytes(4), address("ff02::fb"), (CLIENT6, "ff02::fb"))
    alert = struct.pack("!BBBBHBB", ICMPV6, 0, 5, 2, 0, 1, 0)
    yield ethernet(IPV6, ipv6(HOP_BY_HOP, alert + report, destination="ff02::fb", hop_limit=1))
    yield ethernet(IPV6, ipv6(NO_NEXT, b""))
    yield ethernet(IPV6, ipv6(DESTINATION, options(NO_NEXT, b"ignored!")))
    yield ethernet(IPV6, ipv6(DESTINATION, options(ESP, b"\0\0\1\0\0\0\0\1" + b"\xee" * 32)))
    # Eight headers, nine, one that is beyond any window, a chain that is cut off.
    for count in (8, 9):
        packet, kind = UDP6, UDP
        for _ in range(count):
            packet, kind = options(kind, packet), DESTINATION
        yield ethernet(IPV6, ipv6(kind, packet))
    yield ethernet(IPV6, ipv6(DESTINATION, options(TCP, TCP6, 256)))
    yield ethernet(IPV6, ipv6(DESTINATION, options(UDP, UDP6)[:5]))
    yield ethernet(IPV6, ipv6(UDP, UDP6, traffic_class=0xB8, hop_limit=255))


def protocols():
    sctp = struct.pack("!HHII", 2905, 2906, 0x1234, 0) + struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65536, 10, 10, 1)
    for ethertype, build in ((IPV4, ipv4), (IPV6, ipv6)):
        inner = ipv4(UDP, UDP4)
        yield ethernet(ethertype, build(SCTP, sctp))
        yield ethernet(ethertype, build(GRE, struct.pack("!HH", 0, IPV4) + inner))
        yield ethernet(ethertype, build(ESP, b"\0\0\1\0\0\0\0\1" + b"\xee" * 32))
        yield ethernet(ethertype, build(4, inner))
        yield ethernet(ethertype, build(41, ipv6(UDP, UDP6)))
        yield ethernet(ethertype, build(UDPLITE, struct.pack("!HHHH", 40003, 5002, 8, 0) + b"lite"))
        yield ethernet(ethertype, build(DCCP, struct.pack("!HHBBHI", 40004, 5003, 4, 0, 0, 1) + bytes(8)))
        yield ethernet(ethertype, build(OSPF, bytes.fromhex("02010018c00002010000000000000000") + bytes(8)))
        yield ethernet(ethertype, build(253, b"experiment"))
        yield ethernet(ethertype, build(255, b""))
    yield ethernet(IPV4, ipv4(AH, authentication(TCP, TCP4)))
    igmp = b"\x16\0\0\0" + address("233.252.0.1")
    igmp = igmp[:2] + struct.pack("!H", checksum(igmp)) + igmp[4:]
    yield ethernet(IPV4, ipv4(IGMP, igmp, destination="233.252.0.1", options=b"\x94\4\0\0", ttl=1))
    # The other family's ICMP is a protocol like any.
    yield ethernet(IPV4, ipv4(ICMPV6, icmp(128, 0)))
    yield ethernet(IPV6, ipv6(ICMP, icmp(8, 0)))


def icmp_errors():
    quoted = ipv4(UDP, UDP4)[:28]
    for kind, code, rest in ((3, 1, bytes(4)), (3, 3, bytes(4)), (3, 4, b"\0\0\5\xdc"), (4, 0, bytes(4)),
                             (5, 1, address(ROUTER)), (11, 0, bytes(4)), (12, 0, b"\x14\0\0\0")):
        yield ethernet(IPV4, ipv4(ICMP, icmp(kind, code, rest, quoted), ROUTER, CLIENT))
    quoted = ipv6(TCP, TCP6)
    for kind, code, rest in ((1, 4, bytes(4)), (2, 0, b"\0\0\5\0"), (3, 0, bytes(4)), (4, 1, b"\0\0\0\6")):
        yield ethernet(IPV6, ipv6(ICMPV6, icmpv6(kind, code, rest, quoted, (ROUTER6, CLIENT6)), ROUTER6, CLIENT6))


def icmp_queries():
    for query, answer in ((8, 0), (13, 14), (15, 16), (17, 18), (10, 9)):
        payload = b"\0\0\0\1" * 3
        yield ethernet(IPV4, ipv4(ICMP, icmp(query, 0, payload=payload)))
        yield ethernet(IPV4, ipv4(ICMP, icmp(answer, 0, payload=payload), SERVER, CLIENT))
    for query, answer in ((128, 129), (130, 131), (133, 134), (135, 136), (139, 140), (144, 145)):
        payload = address(SERVER6)
        yield ethernet(IPV6, ipv6(ICMPV6, icmpv6(query, 0, payload=payload)))
        yield ethernet(IPV6, ipv6(ICMPV6, icmpv6(answer, 0, payload=payload, ends=V6[::-1]), SERVER6, CLIENT6))
    # Node information about a name (RFC 4620 4): the code is not 0.
    yield ethernet(IPV6, ipv6(ICMPV6, icmpv6(139, 1, payload=bytes(12))))


def tcp_flags():
    for flags in range(512):
        yield ethernet(IPV4, ipv4(TCP, tcp(50000, 80, flags)), pad=False)


def tcp_headers():
    for size in range(0, 44, 4):
        yield ethernet(IPV4, ipv4(TCP, tcp(50002, 80, 0x010, options=b"\1" * size)))
        yield ethernet(IPV6, ipv6(TCP, tcp(50002, 80, 0x010, V6, options=b"\1" * size)))
    # A data offset below five words, and one beyond the segment.
    yield ethernet(IPV4, ipv4(TCP, tcp(50003, 80, 0x010, words=4)))
    yield ethernet(IPV4, ipv4(TCP, tcp(50003, 80, 0x010, words=15)))
    # Segments that end within their header.
    for size in (0, 3, 4, 13, 14, 19):
        yield ethernet(IPV4, ipv4(TCP, tcp(50004, 80, 0x010)[:size]), pad=False)


def runts():
    whole = ethernet(IPV4, ipv4(UDP, UDP4), pad=False)
    for size in (1, 6, 12, 13, 14, 15, 33, 34, 37, 38, 41, 42):
        yield whole[:size]
    whole = ethernet(IPV6, ipv6(UDP, UDP6), [(VLAN, 9)], pad=False)
    for size in (15, 16, 17, 18, 19, 57, 58, 61, 62, 66):
        yield whole[:size]


def malformed():
    for first in (0x44, 0x40, 0x55, 0x65, 0x05):
        yield ethernet(IPV4, ipv4(UDP, UDP4, first=first))
    yield ethernet(IPV4, ipv4(UDP, b"", first=0x4F), pad=False)
    yield ethernet(IPV4, ipv4(UDP, UDP4, total=19))
    yield ethernet(IPV4, ipv4(UDP, UDP4, options=b"\1" * 4, total=23))
    yield ethernet(IPV4, ipv6(UDP, UDP6))
    yield ethernet(IPV6, ipv4(UDP, UDP4 + bytes(20)))
    yield ethernet(IPV6, ipv6(UDP, UDP6, version=4))
    # Odd, but good enough: flows.
    yield ethernet(IPV4, ipv4(UDP, UDP4, total=60000))
    yield ethernet(IPV4, ipv4(UDP, UDP4, total=22))
    yield ethernet(IPV6, ipv6(UDP, UDP6, length=60000))
    yield ethernet(IPV6, ipv6(UDP, UDP6, length=2))
    yield ethernet(IPV4, ipv4(UDP, UDP4, "0.0.0.0", "255.255.255.255", ttl=0))
    yield ethernet(IPV6, ipv6(UDP, UDP6, "::ffff:192.0.2.1", "::ffff:198.51.100.7", hop_limit=0))
    yield ethernet(IPV4, ipv4(UDP, udp(0, 0)))


def snaplen():
    frames = (
        ethernet(IPV4, ipv4(TCP, tcp(50005, 80, 0x018, options=b"\1" * 12, payload=bytes(1400)))),
        ethernet(IPV6, ipv6(TCP, tcp(50005, 80, 0x018, V6, options=b"\1" * 12, payload=bytes(1400)))),
        ethernet(IPV4, ipv4(UDP, udp(40005, 9, bytes(900)), options=b"\1" * 8), [(SERVICE_VLAN, 7), (VLAN, 8)]),
    )
    for frame in frames:
        for kept in (0, 13, 14, 20, 33, 34, 38, 42, 48, 53, 54, 58, 62, 68, 74, 96):
            yield frame[:kept], len(frame)


def super_packets():
    # Beyond 64 KiB the length fields are 0 (Linux "BIG TCP"), or the payload is a jumbogram (RFC 2675).
    yield ethernet(IPV4, ipv4(TCP, tcp(50006, 80, 0x010, payload=bytes(64)), total=0)), 100054
    yield ethernet(IPV6, ipv6(TCP, tcp(50006, 80, 0x010, V6, payload=bytes(64)), length=0)), 100074
    jumbo = struct.pack("!BBBBI", TCP, 0, 0xC2, 4, 100028)
    yield ethernet(IPV6, ipv6(HOP_BY_HOP, jumbo + tcp(50006, 80, 0x010, V6, payload=bytes(64)), length=0)), 100082


def raw():
    yield ipv4(UDP, UDP4)
    yield ipv6(UDP, UDP6)
    yield ipv4(TCP, TCP4, options=b"\1" * 4)
    yield ipv6(FRAGMENT, fragment(UDP, 9, 0, UDP6))
    yield ipv4(ICMP, icmp(8, 0))
    yield ipv4(UDP, UDP4)[:19]
    yield ipv6(UDP, UDP6)[:39]
    yield b"\x50" * 40


def write(path, link, records):
    """A classic pcap file, microseconds, little-endian; one packet a millisecond."""
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)
    for number, record in enumerate(records):
        frame, length = record if isinstance(record, tuple) else (record, len(record))
        data += struct.pack("<IIII", 1_700_000_000, number * 1000, len(frame), length) + frame
    path.write_bytes(data)


def main():
    folder = pathlib.Path(__file__).parent
    for build in (ipv4_options, ipv4_fragments, ipv6_fragments, vlan, non_ip, ipv6_extensions, protocols, icmp_errors,
                  icmp_queries, tcp_flags, tcp_headers, runts, malformed, snaplen, super_packets):
        write(folder / f"{build.__name__.replace('_', '-')}.pcap", ETHERNET, build())
    write(folder / "raw.pcap", RAW, raw())


if __name__ == "__main__":
    main()
