#!/usr/bin/env python3
"""Records the captures in this directory anew: real traffic between two network namespaces made for it.

Run as root: ./generate.py [NAME ...]. Needs tcpdump, dumpcap, curl and iperf3. What the kernel at hand cannot speak
(SCTP, VLAN devices, extension headers) is crafted here and sent through a packet socket, so that it, too, has passed a
wire and was recorded by the same tools. README.md says what is in each file.
"""

import ctypes
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
LEFT, RIGHT = f"capture-left-{os.getpid()}", f"capture-right-{os.getpid()}"
LEFT4, RIGHT4 = "10.9.0.1", "10.9.0.2"
LEFT6, RIGHT6 = "fd09::1", "fd09::2"
IPV4, IPV6 = 0x0800, 0x86DD
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


# --- namespaces and recorders -------------------------------------------------------------------------------------


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def inside(namespace, *command):
    return ["ip", "netns", "exec", namespace, *command]


def set_up():
    for namespace in (LEFT, RIGHT):
        run("ip", "netns", "add", namespace)
        # Routers are not asked for, and no link-local address announces itself in the middle of a capture.
        run(*inside(namespace, "sysctl", "-qw", "net.ipv6.conf.default.router_solicitations=0"))
        run(*inside(namespace, "sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1"))
    run("ip", "link", "add", "left0", "netns", LEFT, "type", "veth", "peer", "name", "right0", "netns", RIGHT)
    for namespace, device, v4, v6 in ((LEFT, "left0", LEFT4, LEFT6), (RIGHT, "right0", RIGHT4, RIGHT6)):
        run("ip", "-n", namespace, "addr", "add", f"{v4}/24", "dev", device)
        run("ip", "-n", namespace, "addr", "add", f"{v6}/64", "dev", device, "nodad")
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", namespace, "link", "set", device, "up")


def tear_down():
    for namespace in (LEFT, RIGHT):
        subprocess.run(["ip", "netns", "del", namespace], check=False, stderr=subprocess.DEVNULL)


class Recorder:
    """Records in the left namespace, or another, while its block runs."""

    def __init__(self, name, *options, tool="tcpdump", namespace=LEFT, interfaces=("left0",)):
        self.path = HERE / name
        self.path.unlink(missing_ok=True)
        devices = [word for interface in interfaces for word in ("-i", interface)]
        quiet = ["-U", "-n", "-Z", "root"] if tool == "tcpdump" else []
        self.command = inside(namespace, tool, *quiet, *devices, *options, "-w", str(self.path))

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "listening on" in line or line.startswith("File:"):
                break
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        time.sleep(0.7)
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.process.stderr.close()


def in_namespace(namespace, function):
    """Runs a function in a thread of its own inside the namespace and returns what it returned."""
    result = []

    def body():
        with open(f"/run/netns/{namespace}") as file:
            if LIBC.setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        result.append(function())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return result[0] if result else None


def socket_in(namespace, *arguments):
    return in_namespace(namespace, lambda: socket.socket(*arguments))


# --- bytes ----------------------------------------------------------------------------------------------------------


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(kind, payload, *tags):
    """An Ethernet frame between the two; tags are (ethertype, identifier)."""
    addresses = bytes.fromhex("020000000002") + bytes.fromhex("020000000001")
    tagged = b"".join(struct.pack("!HH", tag, identifier) for tag, identifier in tags)
    return addresses + tagged + struct.pack("!H", kind) + payload


def ipv4(protocol, payload, source=LEFT4, destination=RIGHT4, options=b"", offset=0, more=False):
    words = 5 + len(options) // 4
    fragment = offset // 8 | (0x2000 if more else 0)
    head = struct.pack("!BBHHHBBH4s4s", words | 0x40, 0, words * 4 + len(payload), 7, fragment, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(destination)) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(following, payload, source=LEFT6, destination=RIGHT6):
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack("!IHBB", 0x60000000, len(payload), following, 64) + addresses + payload


def udp(source, destination, payload=b"x" * 30):
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def tcp(source, destination, flags, payload=b"", sequence=1, options=b""):
    words = 5 + len(options) // 4
    return struct.pack("!HHIIHHHH", source, destination, sequence, 0, words << 12 | flags, 512, 0, 0) + options + payload


def send(*frames):
    """Puts frames on the wire, from the left."""
    wire = socket_in(LEFT, socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind(("left0", 0))
    for frame in frames:
        wire.send(frame)
    wire.close()


# --- traffic --------------------------------------------------------------------------------------------------------


def http(address):
    """Three requests, one of them for something that does not exist."""
    directory = pathlib.Path(f"/tmp/capture-http-{os.getpid()}")
    directory.mkdir(exist_ok=True)
    (directory / "index.html").write_text("<h1>A weir</h1>\n" * 200)
    server = subprocess.Popen(
        inside(RIGHT, sys.executable, "-m", "http.server", "8080", "--bind", address, "-d", str(directory)),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host = f"[{address}]" if ":" in address else address
    probe = f"curl -sf --retry 40 --retry-connrefused --retry-delay 0 -o /dev/null http://{host}:8080/"
    run(*inside(RIGHT, *probe.split()))
    yield
    for path in ("/", "/missing", "/"):
        subprocess.run(inside(LEFT, "curl", "-s", "-o", "/dev/null", f"http://{host}:8080{path}"), check=True)
    server.terminate()
    server.wait()
    (directory / "index.html").unlink()
    directory.rmdir()


def with_http(name, address, *options, **recorder):
    traffic = http(address)
    next(traffic)
    with Recorder(name, *options, **recorder):
        next(traffic, None)


def dns():
    """Six queries; the server answers all but one."""
    server = socket_in(RIGHT, socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((RIGHT4, 53))
    for number, name in enumerate(("weir.example", "www.example", "mail.example", "nobody.example", "a.b.c.example")):
        client = socket_in(LEFT, socket.AF_INET, socket.SOCK_DGRAM)
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        question = labels + b"\0" + struct.pack("!HH", 1, 1)
        client.sendto(struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + question, (RIGHT4, 53))
        query, peer = server.recvfrom(1500)
        if name != "nobody.example":
            answer = b"\xc0\x0c" + struct.pack("!HHIH4s", 1, 1, 60, 4, socket.inet_aton("192.0.2.7"))
            server.sendto(query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + question + answer, peer)
            client.recv(1500)
        client.close()
    server.close()


def ping(address, count=4, size=56, namespace=LEFT):
    is_v6 = ":" in address
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    sender = socket_in(namespace, family, socket.SOCK_RAW, protocol)
    for number in range(count):
        message = struct.pack("!BBHHH", 128 if is_v6 else 8, 0, 0, 4711, number) + b"weir" * (size // 4)
        if not is_v6:
            message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        sender.sendto(message, (address, 0))
        time.sleep(0.02)
    sender.close()


def iperf3(*options):
    server = subprocess.Popen(inside(RIGHT, "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL)
    time.sleep(0.4)
    run(*inside(LEFT, "iperf3", "-c", RIGHT4, *options))
    server.wait()


def datagrams(family, address, sizes, port=9, reply=False):
    receiver = socket_in(RIGHT, family, socket.SOCK_DGRAM)
    receiver.bind((address, port))
    sender = socket_in(LEFT, family, socket.SOCK_DGRAM)
    for size in sizes:
        sender.sendto(b"d" * size, (address, port))
        data, peer = receiver.recvfrom(65536)
        if reply:
            receiver.sendto(data, peer)
    sender.close()
    receiver.close()


def refused_and_reset():
    client = socket_in(LEFT, socket.AF_INET, socket.SOCK_STREAM)
    client.connect_ex((RIGHT4, 81))
    client.close()
    server = socket_in(RIGHT, socket.AF_INET, socket.SOCK_STREAM)
    server.bind((RIGHT4, 82))
    server.listen()
    client = socket_in(LEFT, socket.AF_INET, socket.SOCK_STREAM)
    client.connect((RIGHT4, 82))
    accepted, _ = server.accept()
    client.send(b"soon to be reset")
    # Closing with nothing to linger for sends a RST.
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()
    client.close()
    server.close()


def reopened():
    """The same addresses and ports three times, each connection closed before the next opens."""
    server = socket_in(RIGHT, socket.AF_INET, socket.SOCK_STREAM)
    server.bind((RIGHT4, 83))
    server.listen()
    for _ in range(3):
        client = socket_in(LEFT, socket.AF_INET, socket.SOCK_STREAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((LEFT4, 40000))
        client.connect((RIGHT4, 83))
        accepted, _ = server.accept()
        client.send(b"again")
        accepted.recv(100)
        # The server closes first, so that it keeps the state that forbids reuse, and takes the new SYN for fresh.
        accepted.close()
        client.recv(100)
        client.close()
        time.sleep(0.05)
    server.close()


def groups():
    for family, address, port in ((socket.AF_INET, "224.0.0.251", 5353), (socket.AF_INET, "10.9.0.255", 9),
                                  (socket.AF_INET6, "ff02::fb%left0", 5353)):
        sender = socket_in(LEFT, family, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if family == socket.AF_INET:
            in_namespace(LEFT, lambda: sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF,
                                                         socket.inet_aton(LEFT4)))
            sender.sendto(b"to many", (address, port))
        else:
            index = in_namespace(LEFT, lambda: socket.if_nametoindex("left0"))
            sender.sendto(b"to many", ("ff02::fb", port, 0, index))
        sender.close()


def sctp_packets():
    def packet(source, destination, chunk):
        return struct.pack("!HHII", source, destination, 1, 0) + chunk

    init = struct.pack("!BBHIIHHI", 1, 0, 20, 1, 1500, 1, 1, 1)
    data = struct.pack("!BBHIHHI", 0, 3, 20, 1, 0, 0, 0) + b"data"
    there = [ipv4(132, packet(5000, 6000, chunk)) for chunk in (init, data, data)]
    back = [ipv4(132, packet(6000, 5000, init), RIGHT4, LEFT4), ipv6(132, packet(6000, 5000, init))]
    return [ethernet(IPV6 if packet[0] >> 4 == 6 else IPV4, packet) for packet in there + back]


def tagged():
    vlan = (0x8100, 10)
    frames = [ethernet(IPV4, ipv4(17, udp(1000, 2000)), vlan), ethernet(IPV4, ipv4(17, udp(1000, 2000)), vlan),
              ethernet(IPV4, ipv4(17, udp(2000, 1000), RIGHT4, LEFT4), vlan),
              ethernet(IPV6, ipv6(6, tcp(3000, 443, 2)), (0x8100, 20)),
              ethernet(0x0806, b"\0" * 28, vlan)]
    return frames


def twice_tagged():
    return [ethernet(IPV4, ipv4(6, tcp(1000, 80, 0x10, b"y" * 100)), (0x88A8, 100), (0x8100, 10)),
            ethernet(IPV6, ipv6(17, udp(1000, 53)), (0x88A8, 100), (0x8100, 11)),
            ethernet(IPV4, ipv4(17, udp(53, 1000), RIGHT4, LEFT4), (0x8100, 100), (0x8100, 10))]


def protocols():
    frames = [ethernet(IPV4, ipv4(number, b"\0" * 40)) for number in (2, 47, 50, 88, 89, 103, 112, 253)]
    frames += [ethernet(IPV6, ipv6(number, b"\0" * 40)) for number in (50, 59, 89, 253)]
    frames.append(ethernet(IPV4, ipv4(4, ipv4(17, udp(1, 2)))))
    frames.append(ethernet(IPV4, ipv4(41, ipv6(17, udp(1, 2)))))
    frames.append(ethernet(IPV6, ipv6(41, ipv6(6, tcp(1, 2, 2)))))
    return frames


def options4():
    record_route = b"\x07\x0b\x04" + b"\0" * 8 + b"\0"
    router_alert = b"\x94\x04\0\0"
    return [ethernet(IPV4, ipv4(17, udp(1000, 2000), options=record_route)),
            ethernet(IPV4, ipv4(17, udp(2000, 1000), RIGHT4, LEFT4, options=record_route)),
            ethernet(IPV4, ipv4(6, tcp(1000, 80, 2, options=b"\x02\x04\x05\xb4"), options=router_alert)),
            ethernet(IPV4, ipv4(2, b"\x16\0\0\0\xe0\0\0\xfb", destination="224.0.0.22", options=router_alert))]


def extensions6():
    def extension(following, length=8):
        return struct.pack("!BB", following, length // 8 - 1) + b"\x01" + bytes([length - 4]) + b"\0" * (length - 4)

    routing = struct.pack("!BBBB", 17, 2, 0, 0) + b"\0" * 4 + socket.inet_pton(socket.AF_INET6, RIGHT6)
    authentication = struct.pack("!BBHII", 6, 4, 0, 1, 1) + b"\0" * 12
    return [ethernet(IPV6, ipv6(0, extension(17) + udp(1000, 2000))),
            ethernet(IPV6, ipv6(0, extension(60) + extension(6, 24) + tcp(1000, 80, 2))),
            ethernet(IPV6, ipv6(43, routing + udp(1000, 3000))),
            ethernet(IPV6, ipv6(51, authentication + tcp(1000, 81, 2))),
            ethernet(IPV6, ipv6(60, extension(59) + b"\0" * 8)),
            ethernet(IPV6, ipv6(17, udp(2000, 1000), RIGHT6, LEFT6))]


def not_ip():
    arp = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + b"\2\0\0\0\0\1" + socket.inet_aton(LEFT4) + b"\0" * 6 \
        + socket.inet_aton("10.9.0.77")
    spanning_tree = b"\x01\x80\xc2\0\0\0\x02\0\0\0\0\x01" + struct.pack("!H", 38) + b"\x42\x42\x03" + b"\0" * 43
    return [ethernet(0x0806, arp), ethernet(0x88CC, b"\x02\x07\x04\x02\0\0\0\0\x01\0\0"), spanning_tree,
            ethernet(0x8847, b"\0\x01\x01\x40" + ipv4(17, udp(1, 2))), ethernet(0x8864, b"\x11\0\0\x01\0\x04\xc0\x21\x09\x01"),
            ethernet(IPV4, ipv4(17, udp(1000, 2000)))]


def odd_flags():
    every = (0, 0x29, 0x1FF, 0x03, 0x06, 0x11, 0x14, 0xC2)
    return [ethernet(IPV4, ipv4(6, tcp(1000, 2000 + flags, flags))) for flags in every]


def tunnel_device():
    """A tun device: packets without any link-layer header."""
    import fcntl

    def opened():
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"tunnel0", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
        return device

    device = in_namespace(LEFT, opened)
    run("ip", "-n", LEFT, "addr", "add", "10.8.0.1/24", "dev", "tunnel0")
    run("ip", "-n", LEFT, "addr", "add", "fd08::1/64", "dev", "tunnel0", "nodad")
    run("ip", "-n", LEFT, "link", "set", "tunnel0", "up")
    return device


def through_tunnel(device):
    ping("10.8.0.2", 2)
    ping("fd08::2", 2)
    for packet in (ipv4(17, udp(53, 4000), "10.8.0.2", "10.8.0.1"), ipv6(6, tcp(443, 4000, 0x12), "fd08::2", "fd08::1")):
        os.write(device, packet)


# --- captures -------------------------------------------------------------------------------------------------------


def records_of(path):
    """Time, original length and bytes of the records of a little-endian pcap file with microseconds."""
    data = path.read_bytes()
    offset = 24
    while offset < len(data):
        seconds, fraction, captured, original = struct.unpack_from("<IIII", data, offset)
        yield seconds, fraction, original, data[offset + 16:offset + 16 + captured]
        offset += 16 + captured


def rewrite(name, source, link_type, change, order="<", magic=0xA1B2C3D4, scale=1):
    """Writes a pcap file with the records of another, in another dialect of the format."""
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    for seconds, fraction, original, data in records_of(HERE / source):
        changed = change(data)
        original += len(changed) - len(data)
        out += struct.pack(order + "IIII", seconds, fraction * scale, len(changed), original) + changed
    (HERE / name).write_bytes(out)


def family_in_front(order, family6):
    """The number of the IPv6 family differs from system to system: 30 on Darwin, 24 on OpenBSD."""
    def change(packet):
        return struct.pack(order + "I", 2 if packet[0] >> 4 == 4 else family6) + packet
    return change


def simple_blocks(name, source):
    """A pcapng file whose packets have neither time nor interface, and a block that nobody knows."""
    def block(kind, body):
        body += b"\0" * (-len(body) % 4)
        return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)

    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(1, struct.pack("<HHI", 1, 0, 0))
    out += block(0x0BADBEEF, b"nobody reads this")
    for *_, original, data in records_of(HERE / source):
        out += block(3, struct.pack("<I", original) + data)
    (HERE / name).write_bytes(out)


def sent(name, frames, *options):
    with Recorder(name, *options):
        send(*frames)


def offloads(state):
    for namespace, device in ((LEFT, "left0"), (RIGHT, "right0")):
        run(*inside(namespace, "ethtool", "-K", device, "tso", state, "gso", state, "gro", state))


def captured(name, traffic, *options, **recorder):
    with Recorder(name, *options, **recorder):
        traffic()


def several_interfaces():
    with Recorder("interfaces.pcapng", tool="dumpcap", interfaces=("left0", "lo")):
        ping(RIGHT4, 2)
        ping("127.0.0.1", 2)
        ping("::1", 2)


def tunnelled():
    device = tunnel_device()
    with Recorder("raw.pcap", interfaces=("tunnel0",)):
        through_tunnel(device)
    os.close(device)


def without_offloads():
    offloads("off")
    captured("tcp-segments.pcap", lambda: iperf3("-n", "150K", "-R"), "-s", "96")
    offloads("on")


# The order matters where a file is made from another.
CAPTURES = {
    "http.pcapng": lambda: with_http("http.pcapng", RIGHT4, tool="dumpcap"),
    "http6.pcapng": lambda: with_http("http6.pcapng", RIGHT6, tool="dumpcap"),
    "http-nanoseconds.pcap": lambda: with_http("http-nanoseconds.pcap", RIGHT4, "--nano"),
    "http-snapped.pcap": lambda: with_http("http-snapped.pcap", RIGHT4, "-s", "60"),
    "http-cooked.pcap": lambda: with_http("http-cooked.pcap", RIGHT4, "-y", "LINUX_SLL", interfaces=("any",)),
    "http-cooked2.pcap": lambda: with_http("http-cooked2.pcap", RIGHT6, "-y", "LINUX_SLL2", interfaces=("any",)),
    "dns.pcap": lambda: captured("dns.pcap", dns),
    "ping.pcap": lambda: captured("ping.pcap", lambda: ping(RIGHT4)),
    "ping6.pcap": lambda: captured("ping6.pcap", lambda: ping(RIGHT6)),
    "loopback.pcap": lambda: captured("loopback.pcap", lambda: ping("127.0.0.1"), interfaces=("lo",)),
    "interfaces.pcapng": several_interfaces,
    "tcp-super-packets.pcap": lambda: captured("tcp-super-packets.pcap", lambda: iperf3("-n", "2M", "-P", "2"), "-s", "96"),
    "tcp-segments.pcap": without_offloads,
    "udp.pcap": lambda: captured("udp.pcap", lambda: iperf3("-u", "-n", "100K", "-l", "1200", "-b", "20M"), "-s", "96"),
    "fragments.pcap": lambda: captured("fragments.pcap", lambda: (
        datagrams(socket.AF_INET, RIGHT4, (100, 4000, 9000), reply=True), ping(RIGHT4, 1, 4000))),
    "fragments6.pcap": lambda: captured("fragments6.pcap", lambda: (
        datagrams(socket.AF_INET6, RIGHT6, (100, 4000, 9000), reply=True), ping(RIGHT6, 1, 4000))),
    "unreachable.pcap": lambda: captured("unreachable.pcap", lambda: (
        in_namespace(LEFT, lambda: [
            socket.socket(family, socket.SOCK_DGRAM).sendto(b"anybody?", (address, 7))
            for family, address in ((socket.AF_INET, RIGHT4), (socket.AF_INET6, RIGHT6))]))),
    "reset.pcap": lambda: captured("reset.pcap", refused_and_reset),
    "reopened.pcap": lambda: captured("reopened.pcap", reopened),
    "groups.pcap": lambda: captured("groups.pcap", groups),
    "sctp.pcap": lambda: sent("sctp.pcap", sctp_packets()),
    "vlan.pcap": lambda: sent("vlan.pcap", tagged()),
    "qinq.pcap": lambda: sent("qinq.pcap", twice_tagged()),
    "protocols.pcap": lambda: sent("protocols.pcap", protocols()),
    "ipv4-options.pcap": lambda: sent("ipv4-options.pcap", options4()),
    "ipv6-extensions.pcap": lambda: sent("ipv6-extensions.pcap", extensions6()),
    "not-ip.pcap": lambda: sent("not-ip.pcap", not_ip()),
    "tcp-flags.pcap": lambda: sent("tcp-flags.pcap", odd_flags()),
    "raw.pcap": tunnelled,
    "null.pcap": lambda: rewrite("null.pcap", "raw.pcap", 0, family_in_front("<", 30)),
    "loop.pcap": lambda: rewrite("loop.pcap", "raw.pcap", 108, family_in_front(">", 24)),
    "big-endian.pcap": lambda: rewrite("big-endian.pcap", "dns.pcap", 1, bytes, order=">"),
    "big-endian-nanoseconds.pcap": lambda: rewrite(
        "big-endian-nanoseconds.pcap", "dns.pcap", 1, bytes, order=">", magic=0xA1B23C4D, scale=1000),
    "simple.pcapng": lambda: simple_blocks("simple.pcapng", "dns.pcap"),
    "empty.pcap": lambda: (HERE / "empty.pcap").write_bytes((HERE / "dns.pcap").read_bytes()[:24]),
    "cut.pcap": lambda: (HERE / "cut.pcap").write_bytes((HERE / "dns.pcap").read_bytes()[:-31]),
}


def main():
    wanted = sys.argv[1:] or list(CAPTURES)
    tear_down()
    set_up()
    try:
        # The first packets of a new wire (neighbour and router discovery) belong to no capture.
        ping(RIGHT4, 1)
        ping(RIGHT6, 1)
        time.sleep(2)
        for name in wanted:
            CAPTURES[name]()
            print(f"{name}: {(HERE / name).stat().st_size} bytes")
    finally:
        tear_down()


if __name__ == "__main__":
    main()
