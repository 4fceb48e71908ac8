//! What Weir says of a TCP connection is what its sockets say, also after their end, and nobody else is disturbed.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::fd::{FromRawFd as _, OwnedFd},
    process::{Child, Command, Stdio},
};

use weir_integration::{
    Veth, cannot_run,
    observing::{self, attach_quality, exchange, settled, told},
    require_root,
    sock_ops::Foreign,
    tcp::{Connection, begin_to_connect, cookie, lose, tcp_info, wait_until},
};

#[test]
fn round_trip_times_and_retransmits_are_those_of_the_sockets() {
    if !require_root() {
        return;
    }
    observing::round_trip_times_and_retransmits_are_those_of_the_sockets();
}

#[test]
fn what_a_socket_knew_is_told_after_its_end() {
    if !require_root() {
        return;
    }
    observing::what_a_socket_knew_is_told_after_its_end();
}

#[test]
fn openings_that_nobody_answers_are_sent_again_and_have_no_round_trip_time() {
    if !require_root() {
        return;
    }
    let Some(mut quality) = attach_quality() else { return };
    let wire = Veth::new();
    lose(&wire, true);
    let socket = begin_to_connect(&wire.left, SocketAddr::from((wire.right.ipv4, 80)));
    wait_until("the SYN was sent again", || tcp_info(&socket).retransmits >= 1);
    let (client, sent_again) = (cookie(&socket), tcp_info(&socket).retransmits);
    drop(socket);
    quality.read().expect("it can be read");
    let now = told(&quality.qualities(), client, 0);
    assert_eq!((now.rtt, now.minimum_rtt), (None, None));
    assert!(now.retransmits >= Some(sent_again), "{now:?}");
}

#[test]
fn programs_of_others_go_on_as_if_weir_were_not_there() {
    if !require_root() {
        return;
    }
    let wire = Veth::new();
    let rounds = |foreign: &Foreign, connection: &mut Connection| {
        let before = foreign.calls();
        for _ in 0..10 {
            exchange(connection);
        }
        settled(&connection.client);
        foreign.calls() - before
    };
    let Some(first) = Foreign::attach() else { return };
    let mut alone = Connection::over(&wire);
    assert!(rounds(&first, &mut alone) > 0);

    let Some(mut quality) = attach_quality() else { return };
    let mut after_the_first = Connection::over(&wire);
    assert!(rounds(&first, &mut after_the_first) > 0);
    // This one comes last, and sets the flags of new connections as it likes.
    let second = Foreign::attach().expect("it worked before");
    let mut beside = Connection::over(&wire);
    for foreign in [&first, &second] {
        assert!(rounds(foreign, &mut beside) > 0);
        assert!(rounds(foreign, &mut alone) > 0);
    }
    let client = cookie(&beside.client);
    quality.read().expect("it can be read");
    let qualities = quality.qualities();
    assert!(told(&qualities, client, 0).rtt.is_some());

    drop(quality);
    for foreign in [&first, &second] {
        assert!(rounds(foreign, &mut beside) > 0);
    }
    assert!(rounds(&first, &mut after_the_first) > 0);
}

#[test]
fn two_that_watch_the_same_sockets_know_the_same() {
    if !require_root() {
        return;
    }
    let (Some(mut one), Some(mut other)) = (attach_quality(), attach_quality()) else { return };
    let wire = Veth::new();
    let mut connection = Connection::over(&wire);
    exchange(&mut connection);
    let client = cookie(&connection.client);
    settled(&connection.client);
    one.read().expect("it can be read");
    other.read().expect("it can be read");
    let known = told(&one.qualities(), client, 0);
    assert!(known.rtt.is_some());
    assert_eq!(told(&other.qualities(), client, 0), known);
    drop(one);
    drop(connection);
    other.read().expect("it can be read");
    assert!(told(&other.qualities(), client, 0).rtt.is_some());
}

#[test]
fn nothing_stays_when_the_process_is_killed() {
    if !require_root() || attach_quality().is_none() {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hold-observers"));
    let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the helper starts");
    let mut line = String::new();
    let mut output = BufReader::new(holder.stdout.take().expect("its output is a pipe"));
    output.read_line(&mut line).expect("its output can be read");
    if line != "ready\n" {
        cannot_run("drops cannot be counted");
        drop(holder.stdin.take());
        holder.wait().expect("it is our child");
        return;
    }
    let numbers = programs_of(&holder);
    // Sockets, their walk, drops.
    assert_eq!(numbers.len(), 3, "{numbers:?}");
    assert!(numbers.iter().all(|number| is_loaded(*number)));
    holder.kill().expect("it is our child");
    holder.wait().expect("it is our child");
    wait_until("the programs are gone", || !numbers.iter().any(|number| is_loaded(*number)));
}

/// Numbers of the kernel programs that a process holds.
fn programs_of(process: &Child) -> BTreeSet<u32> {
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", process.id())).expect("it is running");
    let numbers = descriptors.filter_map(|descriptor| {
        let info = fs::read_to_string(descriptor.ok()?.path()).ok()?;
        info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
    });
    numbers.collect()
}

/// Whether the kernel has a program of this number.
fn is_loaded(number: u32) -> bool {
    const PROG_GET_FD_BY_ID: libc::c_long = 13;
    let mut arguments = [number, 0, 0];
    // SAFETY: the command reads these numbers and follows no address.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_GET_FD_BY_ID, arguments.as_mut_ptr(), size_of_val(&arguments))
    };
    if let Ok(descriptor) = i32::try_from(outcome)
        && descriptor >= 0
    {
        // SAFETY: the kernel just gave us this descriptor.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        return true;
    }
    false
}
