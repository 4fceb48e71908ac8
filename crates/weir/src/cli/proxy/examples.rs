//! What `weir proxy … --help` shows below the arguments.

pub(in crate::cli) const PROXY_EXAMPLES: &str = "\
Examples:
  weir proxy run -i eth0 --detach
  weir proxy rule add web --listen tcp:10.0.0.10:12345 --backend 10.0.0.138:23456
  weir proxy ls --watch
  weir proxy trace 'tcp:10.0.0.1:40000->10.0.0.10:12345'
  weir proxy teardown

Diverts connections by rewriting packets; nobody has to be told, and no connection passes through a
process. What the kernel was told it keeps: connections go on without the control process.";

pub(in crate::cli) const RUN_EXAMPLES: &str = "\
Examples:
  weir proxy run -i eth0
  weir proxy run -i eth0 -i veth0=client -f /etc/weir/rules.yaml --detach
  weir proxy run --detach                                after a restart: rules and interfaces of before

Roles: with `uplink`, connections of this machine are diverted as they leave by the interface; with
`client`, those of others as they come in by it. SIGINT and SIGTERM end the control process and leave
everything in effect; checks, the forgetting of connections and changes of rules then wait for the
next one. Needs CAP_NET_ADMIN and CAP_BPF, usually root.";

pub(in crate::cli) const ADD_EXAMPLES: &str = "\
Examples:
  weir proxy rule add web --listen tcp:10.0.0.10:12345 --backend 10.0.0.138:23456
  weir proxy rule add shop --listen tcp:10.0.0.20:443 --backend 10.1.0.1:8443,weight=3 --backend 10.1.0.2:8443 --health tcp
  weir proxy rule add dns --listen 'udp:[fd00::1]:53' --listen 'tcp:[fd00::1]:53' --backend '[fd00::5]:53'
  weir proxy rule add range --listen tcp:10.0.0.30:8000-8099 --backend 10.1.0.3 --on-empty pass
  weir proxy rule add pods --listen tcp:10.0.0.40:80 --backend service:shop/web:http";

pub(in crate::cli) const RULE_EXAMPLES: &str = "\
Examples:
  weir proxy rule add web --listen tcp:10.0.0.10:12345 --backend 10.0.0.138:23456
  weir proxy rule drain web
  weir proxy rule rm web";

pub(in crate::cli) const RM_EXAMPLES: &str = "\
Examples:
  weir proxy rule rm web
  weir proxy rule rm web --now";

pub(in crate::cli) const RULE_DRAIN_EXAMPLES: &str = "\
Examples:
  weir proxy rule drain web
  weir proxy rule undrain web";

pub(in crate::cli) const BACKEND_EXAMPLES: &str = "\
Examples:
  weir proxy backend drain web 10.0.0.138:23456
  weir proxy backend undrain web 10.0.0.138:23456
  weir proxy backend weight web 10.0.0.138:23456 3";

pub(in crate::cli) const APPLY_EXAMPLES: &str = "\
Examples:
  weir proxy apply -f rules.yaml --dry-run --diff
  weir proxy apply -f rules.yaml

Rules that an earlier file brought and this one does not have are removed; rules of `rule add` stay.
All of the file is judged before anything changes. Exit code 2 if anything is wrong with it.";

pub(in crate::cli) const LS_EXAMPLES: &str = "\
Examples:
  weir proxy ls
  weir proxy ls -o json
  weir proxy ls --watch

Without a control process, shows what the kernel has, and says so.";

pub(in crate::cli) const CONNS_EXAMPLES: &str = "\
Examples:
  weir proxy conns
  weir proxy conns --watch
  weir proxy conns --rule web --client 10.0.0.1 -o json

Without a control process, shows what the kernel has, and says so.";

pub(in crate::cli) const STATS_EXAMPLES: &str = "\
Examples:
  weir proxy stats
  weir proxy stats --watch
  weir proxy stats -o json";

pub(in crate::cli) const TRACE_EXAMPLES: &str = "\
Examples:
  weir proxy trace 'tcp:10.0.0.1:40000->10.0.0.10:12345'
  weir proxy trace 'udp:[fd00::9]:5353->[fd00::1]:53' -o json";

pub(in crate::cli) const DOCTOR_EXAMPLES: &str = "\
Examples:
  weir proxy doctor
  weir proxy doctor -i eth0 -i veth0=client";

pub(in crate::cli) const TEARDOWN_EXAMPLES: &str = "\
Examples:
  weir proxy teardown --dry-run
  weir proxy teardown

Ends the control process first, if one runs. Connections that were diverted break.";
