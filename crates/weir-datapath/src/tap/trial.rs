//! Firing the hooks once: what the kernel accepts need not work.

use std::{
    net::{Ipv4Addr, UdpSocket},
    process,
    time::{Duration, Instant},
};

use super::{
    Loaded, MOST_CALL,
    compile::compile,
    error::TapError,
    event::Event,
    rule::{Limits, Payload, Processes, Rule, RuleId, Way},
};

/// How long the records may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends a datagram to ourselves and looks whether both calls are told, with the right bytes.
pub(super) fn fire(loaded: &mut Loaded) -> Result<(), TapError> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(TapError::Trial)?;
    let own = socket.local_addr().map_err(TapError::Trial)?;
    socket.connect(own).map_err(TapError::Trial)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(TapError::Trial)?;
    let rule = Rule {
        id: RuleId(255),
        processes: Processes { pids: vec![process::id()], ..Processes::default() },
        networks: vec![(own.ip(), 32)],
        ports: vec![own.port()..=own.port()],
        way: None,
        role: None,
        payload: Payload::Full,
        limits: Limits { call: MOST_CALL, ..Limits::default() },
    };
    loaded.tables.publish(&compile(&[rule])?, true)?;
    let sent = format!("weir tries its hooks on port {}", own.port()).into_bytes();
    let mut received = vec![0; sent.len()];
    socket.send(&sent).map_err(TapError::Trial)?;
    socket.recv(&mut received).map_err(TapError::Trial)?;
    let outcome = look(loaded, &sent);
    loaded.tables.publish(&compile(&[])?, false)?;
    // What came in between is nobody's business.
    while !loaded.reader.is_empty() {
        loaded.reader.read(&mut |_| {})?;
    }
    outcome
}

fn look(loaded: &mut Loaded, sent: &[u8]) -> Result<(), TapError> {
    let end = Instant::now() + PATIENCE;
    let (mut has_sent, mut has_received, mut is_wrong) = (false, false, false);
    while Instant::now() < end && !(has_sent && has_received) {
        loaded.reader.wait(PATIENCE).map_err(TapError::Ring)?;
        loaded.reader.read(&mut |event| match event {
            Event::Data(data) => {
                is_wrong |= data.bytes != sent;
                match data.place.way {
                    Way::Sent => has_sent = true,
                    Way::Received => has_received = true,
                }
            }
            Event::Gap(_) => is_wrong = true,
            Event::Opened(_) | Event::Finished(_) | Event::Closed(_) => {}
        })?;
    }
    let problem = match (has_sent, has_received, is_wrong) {
        (true, true, false) => return Ok(()),
        (_, _, true) => "other bytes were told",
        (false, _, false) => "the sending was not told",
        (_, false, false) => "the receiving was not told",
    };
    Err(TapError::Silent { bytes: sent.len(), problem })
}
