//! The counting programs, seen from outside: what was sent is what is counted, and every packet has a place.

use weir_integration::{checks, require_root};

#[test]
fn udp_is_counted_exactly_whatever_the_hook() {
    if require_root() {
        for (way, options) in checks::ways() {
            println!("by {way}");
            checks::udp_is_counted_exactly(&options);
        }
    }
}

#[test]
fn devices_without_ethernet_headers_are_counted_exactly_whatever_the_hook() {
    if require_root() {
        for (way, options) in checks::ways() {
            println!("by {way}");
            checks::a_device_without_ethernet_headers_is_counted_exactly(&options);
        }
    }
}

#[test]
fn super_packets_count_as_the_frames_that_they_are_on_the_wire() {
    if require_root() {
        checks::super_packets_count_as_the_frames_that_they_are_on_the_wire(1_000_000);
    }
}

#[test]
fn a_filter_keeps_replies_and_counts_the_rest() {
    if require_root() {
        checks::a_filter_keeps_replies_and_counts_the_rest();
    }
}

#[test]
fn a_full_table_loses_detail_and_never_totals_then_grows() {
    if require_root() {
        checks::a_full_table_loses_detail_and_never_totals_then_grows(5_000);
    }
}
