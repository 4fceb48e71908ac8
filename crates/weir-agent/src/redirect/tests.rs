//! Rules files, what they become, and how that changes.

mod engine;
mod properties;

use weir_datapath::redirect::{Role, Transport};

use super::{
    diff::diff,
    rules::{Rules, parse_place},
    text::{ListenerText, TupleText, check_name, parse_backend, parse_check, parse_listener, parse_tuple},
};

/// Rules of this text, which is right.
fn rules(text: &str) -> Rules {
    Rules::read(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Everything that is wrong with this text.
fn problems(text: &str) -> String {
    Rules::read(text).expect_err("it is wrong").to_string()
}

#[test]
fn a_listener_is_shown_as_it_was_written() {
    for text in [
        "tcp:10.0.0.10:12345",
        "tcp:10.0.0.10:80-90",
        "udp:[fd00::1]:53",
        "tcp:10.1.0.0/16:443",
        "tcp:[fd00::/64]:443",
        "tcp:10.0.0.1:*",
        "tcp:0.0.0.0/0:80",
    ] {
        let listener = parse_listener(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(ListenerText(listener).to_string(), text);
    }
    assert_eq!(parse_listener("udp:[fd00::1]:53").unwrap().transport, Transport::Udp);
}

#[test]
fn a_listener_that_makes_no_sense_is_refused_with_the_remedy() {
    fn check(text: &str, expect: &str) {
        let said = parse_listener(text).expect_err(text).to_string();
        assert!(said.contains(expect), "{text}: {said}");
    }
    check("10.0.0.1:80", "unknown transport `10.0.0.1`");
    check("web", "`web` is no listener");
    check("tcp:10.0.0.1", "no listener");
    check("sctp:10.0.0.1:80", "unknown transport `sctp`: use tcp or udp");
    check("tcp:10.0.0.256:80", "`10.0.0.256` is no address");
    check("tcp:fd00::1:80", "with brackets");
    check("tcp:[10.0.0.1]:80", "is no address");
    check("tcp:10.0.0.1:0", "`0` is no port");
    check("tcp:10.0.0.1:65536", "`65536` is no port");
    check("tcp:10.0.0.1:90-80", "write 80-90");
    check("tcp:10.1.0.5/16:80", "write 10.1.0.0/16");
    check("tcp:10.1.0.0/33:80", "use 0 to 32");
    check("tcp:[fd00::/129]:80", "use 0 to 128");
    check("tcp:0.0.0.0:80", "no address of one host");
    check("udp:224.0.0.1:80", "no address of one host");
    check("tcp:[::ffff:10.0.0.1]:80", "is an IPv4 address");
}

#[test]
fn backends_checks_and_connections_are_read_and_shown() {
    for text in
        ["10.0.0.138:23456", "10.0.0.1", "[fd00::2]:8080,weight=3", "[fd00::2]", "10.0.0.1:80,weight=0,drain"]
    {
        assert_eq!(parse_backend(text).expect(text).to_string(), text);
    }
    assert_eq!(parse_backend("fd00::2").unwrap().to_string(), "[fd00::2]");
    assert_eq!(parse_backend("10.0.0.1:80,w=2").unwrap().weight, 2);
    for text in ["10.0.0.1:0", "10.0.0.1:80,weight=257", "10.0.0.1:80,heavy", "host:80", "0.0.0.0:80", ""] {
        assert!(parse_backend(text).is_err(), "{text}");
    }
    for text in ["none", "tcp", "http:/ready?a=b", "udp:0a0b", "udp:"] {
        assert_eq!(parse_check(text).expect(text).to_string(), text);
    }
    for text in
        ["", "http", "http:ready", "http:/a b", "http:/a\r\nHost: b", "udp:abc", "udp:+1", "exec:true"]
    {
        assert!(parse_check(text).is_err(), "{text}");
    }
    for text in ["tcp:10.0.0.1:40000->10.0.0.10:12345", "udp:[fd00::1]:5->[fd00::2]:53"] {
        assert_eq!(TupleText(parse_tuple(text).expect(text)).to_string(), text);
    }
    assert!(parse_tuple("tcp:10.0.0.1:1->[fd00::2]:2").is_err());
}

#[test]
fn an_interface_may_say_its_role() {
    assert_eq!(parse_place("veth0").unwrap().role, Role::Uplink);
    assert_eq!(parse_place("veth0=client").unwrap().role, Role::Client);
    for text in ["", "veth0=server", "a/b", "far-too-long-name", "=client"] {
        assert!(parse_place(text).is_err(), "{text}");
    }
    for name in ["web", "web-1", "a.b_c"] {
        assert!(check_name(name).is_ok(), "{name}");
    }
    for name in ["", "-web", "a b", "a/b", "ä", &"x".repeat(64)] {
        assert!(check_name(name).is_err(), "{name}");
    }
}

#[test]
fn every_problem_is_told_with_its_path() {
    let said = problems(
        "
interfaces: [eth0, eth0=client, 'a/b']
conections: 5
rules:
  - name: web
    listen: [tcp:10.0.0.10:80, 'tcp:[fd00::1]:80']
    backends: [10.0.0.138:80, '[fd00::2]:80', 10.0.0.138:80]
  - name: web
    listen: [tcp:10.0.0.0/24:80]
    backends: [10.0.0.10:80]
    health: http
    on_empty: nothing
  - name: 'two words'
    listen: []
    backends: [10.0.0.1]
    health: tcp
    rise: 0
  - listen: [tcp:10.0.0.99:1]
",
    );
    let expect = "\
conections: unknown key `conections`, did you mean `connections`?
rules[1].on_empty: unknown value `nothing`: use one of rst, drop, pass
rules[2].rise: must be 1 or more
rules[3]: needs `backends`
interfaces[1]: eth0 is there twice: an interface has one role
interfaces[2]: `a/b` is no name of an interface
rules[0].listen[1]: mixes address families: make one rule for IPv4 and one for IPv6
rules[0].backends[1]: is IPv6, unlike the listener: addresses are rewritten within one family only
rules[0].backends[2]: 10.0.0.138:80 is there twice: give it more weight
rules[1].health: `http` is no health check: use tcp, http:/PATH, udp:HEX or none
rules[2].name: `two words` is no name of a rule: use up to 63 letters, digits, `-`, `_` and `.`, the first a letter or a digit
rules[2].listen: needs a listener, such as tcp:10.0.0.10:80
rules[2].backends[0]: has no port of its own to check: set health_port
rules[1].name: web is the name of rules[0] as well
rules[1].listen[0]: overlaps tcp:10.0.0.10:80 of rules[0].listen[0]: no two rules may divert the same
rules[0].backends[0]: 10.0.0.138:80 is diverted itself, by tcp:10.0.0.0/24:80 of rules[1].listen[0]: name the address where it goes
rules[0].backends[2]: 10.0.0.138:80 is diverted itself, by tcp:10.0.0.0/24:80 of rules[1].listen[0]: name the address where it goes
rules[1].backends[0]: 10.0.0.10:80 is diverted itself, by tcp:10.0.0.0/24:80 of rules[1].listen[0]: name the address where it goes";
    assert_eq!(said, expect);
}

#[test]
fn rules_that_contradict_each_other_are_named() {
    let said = problems(
        "
rules:
  - {name: a, listen: [tcp:10.0.0.10:80], backends: [10.0.0.138:80]}
  - {name: b, listen: [tcp:10.0.0.0/24:70-90], backends: [10.0.1.1:80]}
  - {name: a, listen: [tcp:10.0.5.5:80], backends: [10.0.5.5:80, 10.0.0.10:80]}
  - {name: c, listen: ['tcp:10.0.6.6:*'], backends: [10.0.6.6]}
",
    );
    let expect = "\
rules[1].listen[0]: overlaps tcp:10.0.0.10:80 of rules[0].listen[0]: no two rules may divert the same
rules[2].name: a is the name of rules[0] as well
rules[0].backends[0]: 10.0.0.138:80 is diverted itself, by tcp:10.0.0.0/24:70-90 of rules[1].listen[0]: name the address where it goes
rules[2].backends[0]: 10.0.5.5:80 is diverted itself, by tcp:10.0.5.5:80 of rules[2].listen[0]: name the address where it goes
rules[2].backends[1]: 10.0.0.10:80 is diverted itself, by tcp:10.0.0.0/24:70-90 of rules[1].listen[0]: name the address where it goes
rules[3].backends[0]: 10.0.6.6 is diverted itself, by tcp:10.0.6.6:* of rules[3].listen[0]: name the address where it goes";
    assert_eq!(said, expect);
}

#[test]
fn what_changes_is_shown_in_the_words_of_the_file() {
    let old = rules(
        "
rules:
  - {name: gone, listen: [tcp:10.0.0.9:80], backends: [10.1.0.1:80]}
  - {name: same, listen: [tcp:10.0.0.8:80], backends: [10.1.0.1:80]}
  - {name: web, listen: [tcp:10.0.0.10:80], backends: [10.1.0.1:80, 10.1.0.2:80], affinity: 60s}
",
    );
    let new = rules(
        "
rules:
  - {name: fresh, listen: ['udp:[fd00::1]:53'], backends: ['[fd00::2]:53'], health: 'udp:00', timeouts: {udp: 3m}}
  - {name: same, listen: [tcp:10.0.0.8:80], backends: [10.1.0.1:80]}
  - {name: web, listen: [tcp:10.0.0.10:80], backends: [10.1.0.1:80, '10.1.0.3:80,weight=2'], on_empty: drop}
",
    );
    let shown = diff(&old.rules, &new.rules).to_string();
    let expect = "\
+ rule fresh
+   listen: udp:[fd00::1]:53
+   backend: [fd00::2]:53
+   health: udp:00
+   health_interval: 2s
+   health_timeout: 1s
+   rise: 2
+   fall: 3
+   timeouts.udp: 3m
- rule gone
-   listen: tcp:10.0.0.9:80
-   backend: 10.1.0.1:80
~ rule web
-   backend: 10.1.0.2:80
-   affinity: 1m
+   backend: 10.1.0.3:80,weight=2
+   on_empty: drop
";
    assert_eq!(shown, expect);
    assert_eq!(diff(&new.rules, &new.rules).to_string(), "");
}
