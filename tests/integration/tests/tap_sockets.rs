//! Sockets that move bytes in unusual ways: by `io_uring`, in other processes that got their descriptor, and without a
//! network.

use std::{
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    process::{self, Command, Stdio},
};

use io_uring::{IoUring, opcode, types::Fd};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use weir_datapath::tap::{GapReason, Processes, Rule, Settings, Tier, Transport, Way};
use weir_integration::{
    require_root,
    tapping::{Recorder, connection, own_rule, socket_id, stream},
};

const KEY: u64 = 41;
const LENGTH: usize = 5000;

fn listener() -> (TcpListener, Rule) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    let port = listener.local_addr().expect("it listens").port();
    (listener, Rule { ports: vec![port..=port], ..own_rule(1) })
}

/// One operation, done when this returns.
fn operate(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> i32 {
    // SAFETY: what the entry refers to outlives the operation, which is waited for.
    unsafe { ring.submission().push(entry) }.expect("there is room for one");
    ring.submit_and_wait(1).expect("the kernel takes it");
    ring.completion().next().expect("it was waited for").result()
}

#[test]
fn what_io_uring_moves_is_a_gap_with_its_name_and_the_rest_is_told() {
    if !require_root() {
        return;
    }
    let (listener, rule) = listener();
    let Some(mut recorder) = Recorder::open(&Settings::default(), &[rule]) else { return };
    let to = listener.local_addr().expect("it listens");
    let (mut client, mut server, ids) = connection(&listener, to);
    let mut ring = IoUring::new(4).expect("the kernel has io_uring");
    let bytes = stream(KEY, 0, LENGTH);
    let length = u32::try_from(LENGTH).expect("it is small");
    let send = opcode::Send::new(Fd(client.as_raw_fd()), bytes.as_ptr(), length).build();
    assert_eq!(usize::try_from(operate(&mut ring, &send)).expect("it was sent"), LENGTH);
    let mut heard = vec![0; LENGTH];
    let receive = opcode::Recv::new(Fd(server.as_raw_fd()), heard.as_mut_ptr(), length).build();
    assert_eq!(usize::try_from(operate(&mut ring, &receive)).expect("it was received"), LENGTH);
    assert!(heard == bytes);
    client.write_all(&stream(KEY, LENGTH as u64, 100)).expect("it is connected");
    server.read_exact(&mut [0; 100]).expect("it is connected");
    drop((client, server));
    let by_calls = recorder.chosen.tier == Tier::Syscalls;
    for (id, way) in ids.into_iter().zip([Way::Sent, Way::Received]) {
        let told = recorder.closing(id);
        let ledger = told.ledger(way);
        assert!(ledger.is_balanced(), "{way:?} {ledger:?}");
        assert_eq!((told.wrong_bytes(way, KEY), ledger.captured), (0, 100), "{way:?} {ledger:?}");
        let total = LENGTH as u64;
        if by_calls {
            assert_eq!(ledger.unseen, Some(total), "{way:?} {ledger:?}");
        } else {
            assert_eq!(told.sums(way).1.get(&GapReason::IoUring), Some(&total), "{way:?} {ledger:?}");
        }
    }
}

/// Hands a descriptor over through a Unix socket, and returns what arrives.
fn passed_on(descriptor: RawFd) -> OwnedFd {
    let (from, to) = UnixStream::pair().expect("there are descriptors");
    let rights = [descriptor];
    let message = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(from.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::empty(), None)
        .expect("they are connected");
    let mut room = nix::cmsg_space!(RawFd);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let received = recvmsg::<()>(to.as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::empty())
        .expect("they are connected");
    let mut messages = received.cmsgs().expect("there was room");
    let Some(ControlMessageOwned::ScmRights(descriptors)) = messages.next() else {
        panic!("no descriptor came")
    };
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(descriptors[0]) }
}

#[test]
fn a_socket_that_other_processes_get_stays_one_with_the_process_of_each_call() {
    if !require_root() {
        return;
    }
    let (listener, rule) = listener();
    // A shell by its name besides ourselves by our number.
    let mut command = [0; 16];
    command[..2].copy_from_slice(b"sh");
    let processes = Processes { pids: vec![process::id()], commands: vec![command], ..Processes::default() };
    let rule = Rule { processes, ..rule };
    let Some(mut recorder) = Recorder::open(&Settings::default(), &[rule]) else {
        return;
    };
    let to = listener.local_addr().expect("it listens");
    let (mut client, mut server, [id, _]) = connection(&listener, to);
    client.write_all(b"ourselves;").expect("it is connected");
    let inherited = client.try_clone().expect("there are descriptors");
    // One statement, so that nobody but the child holds the descriptor.
    let mut child = Command::new("sh")
        .args(["-c", "printf 'our child;'"])
        .stdout(Stdio::from(OwnedFd::from(inherited)))
        .spawn()
        .expect("there is a shell");
    let child_id = child.id();
    assert!(child.wait().expect("it ends").success());
    let passed = passed_on(client.as_raw_fd());
    drop(client);
    assert_eq!(socket_id(&passed), id);
    nix::unistd::write(&passed, b"whoever has it").expect("it is connected");
    drop(passed);
    let mut heard = String::new();
    server.read_to_string(&mut heard).expect("it is connected");
    assert_eq!(heard, "ourselves;our child;whoever has it");
    drop(server);
    let told = recorder.closing(id);
    let pieces: Vec<_> = told
        .side(Way::Sent)
        .iter()
        .map(|piece| (piece.position, piece.pid, piece.bytes.clone().expect("nothing was lost")))
        .collect();
    let own = process::id();
    assert_eq!(
        pieces,
        [
            (0, own, b"ourselves;".to_vec()),
            (10, child_id, b"our child;".to_vec()),
            (20, own, b"whoever has it".to_vec())
        ]
    );
    assert_eq!((told.opened.len(), told.ledger(Way::Sent).unseen), (1, Some(0)));
}

#[test]
fn unix_sockets_are_told_on_request_alone() {
    if !require_root() {
        return;
    }
    for unix in [true, false] {
        let Some(mut recorder) = Recorder::open(&Settings { unix, ..Settings::default() }, &[own_rule(1)])
        else {
            return;
        };
        if recorder.chosen.without.iter().any(|what| what.starts_with("Unix sockets")) {
            continue;
        }
        let (mut from, mut to) = UnixStream::pair().expect("there are descriptors");
        let ids = [socket_id(&from.as_fd()), socket_id(&to.as_fd())];
        from.write_all(&stream(KEY, 0, LENGTH)).expect("they are connected");
        to.read_exact(&mut vec![0; LENGTH]).expect("they are connected");
        if !unix {
            recorder.read();
            assert!(ids.iter().all(|id| !recorder.told.contains_key(id)));
            continue;
        }
        let is_told = |recorder: &Recorder, index: usize, way| {
            recorder.told.get(&ids[index]).is_some_and(|told| told.sums(way).0 == LENGTH as u64)
        };
        recorder.read_until("both ends", |recorder| {
            is_told(recorder, 0, Way::Sent) && is_told(recorder, 1, Way::Received)
        });
        for (id, way) in ids.into_iter().zip([Way::Sent, Way::Received]) {
            let told = &recorder.told[&id];
            assert_eq!((told.wrong_bytes(way, KEY), told.holes(way)), (0, (0, 0)));
            assert_eq!(told.opened[0].transport, Transport::Unix);
        }
    }
}
