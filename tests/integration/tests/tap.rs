//! What a tap tells is what was sent: every way to send and to receive, every size, every family of addresses.

use weir_datapath::tap::Tier;
use weir_integration::{
    require_root,
    tapping::{
        matrix::{SIZES, every_way_over_tcp_is_told_byte_for_byte},
        tier,
    },
};

#[test]
fn every_way_to_send_and_receive_over_tcp_is_told_byte_for_byte() {
    if require_root() {
        every_way_over_tcp_is_told_byte_for_byte(tier(), &SIZES);
    }
}

#[test]
fn system_calls_alone_tell_the_same_but_for_what_they_do_not_see() {
    if require_root() {
        every_way_over_tcp_is_told_byte_for_byte(Some(Tier::Syscalls), &SIZES);
    }
}
