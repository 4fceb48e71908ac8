//! What `cargo xtask test vm` runs in its guests, as root: `weir-vm-smoke smoke|full [PART OF A NAME]`.
//!
//! Prints the kernel and each check with what it counted; ends with `N passed, N failed` and a matching exit code.

use std::{
    env, fs,
    panic::{self, UnwindSafe},
    process::ExitCode,
    time::{Duration, Instant},
};

use weir_datapath::{
    drops::{Drops, DropsError},
    flow::FlowOptions,
    packets::PacketOptions,
    tap::{Settings, Tap, TapError, Tier},
};
use weir_integration::{
    checks, observing, redirecting,
    tapping::{
        matrix,
        peers::{self, By, Family},
    },
};

#[derive(Default)]
struct Report {
    /// Part of the names of the checks that are run.
    filter: String,
    passed: usize,
    failed: usize,
}

impl Report {
    fn check(&mut self, name: &str, check: impl FnOnce() + UnwindSafe) {
        if !name.contains(&self.filter) {
            return;
        }
        let start = Instant::now();
        let outcome = panic::catch_unwind(check);
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => self.passed += 1,
            Err(_) => self.failed += 1,
        }
        println!("{} {name} ({seconds:.1} s)", if outcome.is_ok() { "ok    " } else { "FAILED" });
    }
}

/// The first two numbers of a kernel's version.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether the kernel has TCX links.
fn has_tcx(release: &str) -> bool {
    version(release) >= (6, 6)
}

/// Whether the kernel says why it drops packets.
fn gives_reasons(release: &str) -> bool {
    version(release) >= (5, 17)
}

fn main() -> ExitCode {
    let full = match env::args().nth(1).as_deref() {
        Some("smoke") => false,
        Some("full") => true,
        _ => {
            eprintln!("usage: weir-vm-smoke smoke|full [PART OF A NAME]");
            return ExitCode::from(2);
        }
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("kernel {}", kernel.trim());
    let mut report = Report { filter: env::args().nth(2).unwrap_or_default(), ..Report::default() };
    // Before 6.6 the best way is clsact.
    let skipped = usize::from(!has_tcx(&kernel));
    for (way, options) in checks::ways().into_iter().skip(skipped) {
        report.check(&format!("udp is counted exactly by {way}"), move || {
            checks::udp_is_counted_exactly(&options);
        });
    }
    for (way, options) in checks::ways().into_iter().skip(skipped) {
        report.check(&format!("datagrams at a DNS port are handed over by {way}"), move || {
            checks::datagrams_at_a_dns_port_are_handed_over(&options);
        });
    }
    report.check("a device without Ethernet headers is counted exactly", || {
        checks::a_device_without_ethernet_headers_is_counted_exactly(&FlowOptions::default());
    });
    report.check("super-packets count as the frames that they are on the wire", || {
        checks::super_packets_count_as_the_frames_that_they_are_on_the_wire(300_000);
    });
    report.check("a filter keeps replies and counts the rest", || {
        checks::a_filter_keeps_replies_and_counts_the_rest();
    });
    report.check("a full table loses detail and never totals, then grows", || {
        checks::a_full_table_loses_detail_and_never_totals_then_grows(1_000);
    });
    for snap_length in [128, 65_536] {
        report.check(&format!("every packet is captured, up to {snap_length} bytes"), move || {
            checks::every_packet_is_captured(&PacketOptions::with_snap_length(snap_length));
        });
    }
    report.check("round-trip times and retransmits are those of the sockets", || {
        observing::round_trip_times_and_retransmits_are_those_of_the_sockets();
    });
    report.check("what a socket knew is told after its end", || {
        observing::what_a_socket_knew_is_told_after_its_end();
    });
    report.check("a redirected connection outlives another size of its table", || {
        redirecting::a_connection_outlives_another_size_of_its_table();
    });
    if gives_reasons(&kernel) {
        report.check("packets are counted by the reason they were dropped for", || {
            observing::packets_are_counted_by_the_reason_and_the_interface_they_were_dropped_at(100);
        });
    } else {
        report.check("without reasons of drops, that is said", || {
            assert!(matches!(Drops::attach(), Err(DropsError::NoReasons)));
        });
    }
    // Before 5.17 there are no loops for it.
    if version(&kernel) >= (5, 17) {
        for tier in [Tier::Functions, Tier::Probes, Tier::Syscalls] {
            report.check(&format!("every way to send and receive is tapped by tier {tier}"), move || {
                matrix::every_way_over_tcp_is_told_byte_for_byte(Some(tier), &[1, 257, 20_000]);
            });
            report.check(&format!("datagrams of others are never told by tier {tier}"), move || {
                let cases = [(Family::Mapped, By::Host)];
                peers::what_goes_to_others_or_comes_from_them_is_never_told(Some(tier), &cases);
            });
        }
    } else {
        report.check("without loops in programs, that is said", || {
            assert!(matches!(Tap::open(&Settings::default()), Err(TapError::NoTier(_))));
        });
    }
    if full {
        report.check("a blast is counted to the last byte", || {
            checks::a_short_blast_is_counted_to_the_last_byte(Duration::from_secs(20));
        });
    }
    println!("{} passed, {} failed", report.passed, report.failed);
    if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
