//! Connections that have the same ports one after the other, or that the client made itself.

use super::*;

#[test]
fn what_two_connections_had_in_turn_belongs_to_the_later_one() {
    with_redirect(1024, |redirect| {
        let to = address("10.0.0.138:80");
        let (first, second) = (address("10.0.0.10:80"), address("10.0.0.11:80"));
        redirect.publish(&one_to_one(&[(Transport::Tcp, first, to), (Transport::Tcp, second, to)])).unwrap();
        let client = redirect.program("weir_client_l2").unwrap();
        let answer = redirect.program("weir_answer_l2").unwrap();
        let own = address("10.0.0.1:9100");
        let send = |listen, flags| run(client, &described(true, own, listen, flags).frame(), 0).frame;
        let is_answered_by = |listen| {
            let outcome = run(answer, &described(true, to, own, ACK).frame(), 0);
            assert_eq!(outcome.frame, described(true, listen, own, ACK).frame());
        };
        send(first, SYN);
        is_answered_by(first);
        send(first, RST);
        // The port is free again, and the second one keeps it from here on.
        assert_eq!(send(second, SYN), described(true, own, to, SYN).frame());
        is_answered_by(second);
        // Neither what comes late of the first one nor its client, who begins anew, take anything from it.
        send(first, FIN | ACK);
        is_answered_by(second);
        let changed = send(first, SYN);
        assert!(u16::from_be_bytes([changed[34], changed[35]]) >= 61_000);
        is_answered_by(second);
        assert_eq!(send(second, ACK), described(true, own, to, ACK).frame());
    });
}

#[test]
fn a_connection_that_the_client_made_itself_outlives_the_backend_of_a_rule() {
    with_redirect(1024, |redirect| {
        let (listen, to) = (address("10.0.0.10:80"), address("10.0.0.138:80"));
        let mut desired = one_to_one(&[(Transport::Tcp, listen, to)]);
        redirect.publish(&desired).unwrap();
        let own = address("10.0.0.1:9200");
        let client = redirect.program("weir_client_l2").unwrap();
        run(client, &described(true, own, listen, SYN).frame(), 0);
        let direct = run(client, &described(true, own, to, SYN).frame(), 0).frame;
        let given = SocketAddr::new(own.ip(), u16::from_be_bytes([direct[34], direct[35]]));
        assert_eq!(direct, described(true, given, to, SYN).frame());
        desired.backends[0].standing = Standing::Gone;
        redirect.publish(&desired).unwrap();
        let client = redirect.program("weir_client_l2").unwrap();
        for _ in 0..2 {
            let outcome = run(client, &described(true, own, to, ACK).frame(), 0);
            assert_eq!((outcome.verdict, outcome.frame), (NEXT, described(true, given, to, ACK).frame()));
        }
        let outcome = run(client, &described(true, own, listen, ACK).frame(), 0);
        assert_eq!((outcome.verdict, outcome.frame[47] & RST), (REDIRECT, RST));
    });
}
