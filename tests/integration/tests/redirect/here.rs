//! What is this host: programs, lists and traces have to agree about it.

use weir_datapath::redirect::Desired;

use super::*;

#[test]
fn this_host_is_its_own_addresses_and_loopback_and_not_what_it_may_bind_to() {
    if !require_root() {
        return;
    }
    let (namespace, file_system) = (Namespace::new(), BpfFileSystem::new());
    namespace.ip("address add 10.0.0.1/32 dev lo");
    namespace.ip("link set lo up");
    // As hosts have it that take over addresses of others.
    namespace.sysctl("net/ipv4/ip_nonlocal_bind", "1");
    namespace.run(|| {
        let (mut redirect, _) = file_system.open(64);
        let listen = address("10.0.0.10:80");
        for (to, is_here) in
            [("127.0.0.2:80", true), ("10.0.0.1:80", true), ("10.0.0.9:80", false), ("10.9.9.9:80", false)]
        {
            redirect.publish(&Desired::default()).unwrap();
            redirect.publish(&one_to_one(&[(Transport::Tcp, listen, address(to))])).unwrap();
            let ip = address(to).ip();
            let peeked = Redirect::peek(&file_system.root()).unwrap().unwrap();
            assert_eq!((redirect.is_here(ip).unwrap(), peeked.is_here(ip).unwrap()), (is_here, is_here));
            // Packets that leave cannot be led to this host.
            let own = address("10.0.0.2:999");
            let packet = described(true, own, listen, SYN).frame();
            let outcome = run(redirect.program("weir_uplink_l2").unwrap(), &packet, 0);
            assert_eq!(outcome.frame == packet, is_here, "{to}");
            assert_eq!(count(&redirect, "backend_here"), u64::from(is_here), "{to}");
            redirect.end_connections(weir_datapath::redirect::ConnectionsOf::Client(own.ip())).unwrap();
        }
        assert!(redirect.is_here("::1".parse().unwrap()).unwrap());
    });
}
