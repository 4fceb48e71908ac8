//! [`Sides`]: both directions of a connection, and where one that was lost is understood again.
//!
//! After a gap, and on connections that were joined in the middle, a message is taken to begin where the client speaks after the
//! server did, and where the server speaks after a request.

use crate::{Moment, Part, exchange::Trust};

/// What a reader of one direction knows of where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Between two messages.
    Between,
    /// Within one.
    Within,
    /// What follows is another protocol.
    Opaque,
    /// Nothing, until [`Direction::find_again`].
    Lost,
}

/// Reads one direction: finds where messages begin and end.
pub(crate) trait Direction {
    /// What comes next.
    type Step<'d>;

    /// Of a connection at its beginning.
    fn of(part: Part) -> Self;

    fn standing(&self) -> Standing;

    /// Knows nothing any more, until [`Direction::find_again`].
    fn lose(&mut self);

    /// Takes what comes next for the beginning of a message.
    fn find_again(&mut self);

    /// What follows is another protocol.
    fn become_opaque(&mut self);

    /// Takes note of bytes that are not there. Gives back whether it is still known where things begin and end.
    fn gap(&mut self, length: u64) -> bool;

    /// Reads on; `data` is shortened by what was read. `None` when there is nothing to tell before more comes.
    fn step<'d>(&mut self, data: &mut &'d [u8]) -> Option<Self::Step<'d>>;

    /// Whether what is being read was none after all, if its beginning was guessed and the other side speaks already.
    fn may_be_wrong(&self) -> bool {
        false
    }

    fn is_lost(&self) -> bool {
        self.standing() == Standing::Lost
    }

    fn is_opaque(&self) -> bool {
        self.standing() == Standing::Opaque
    }

    fn is_between(&self) -> bool {
        self.standing() == Standing::Between
    }
}

/// Both directions.
#[derive(Debug)]
pub(crate) struct Sides<R> {
    pub(crate) client: R,
    pub(crate) server: R,
    /// Whether a lost client may be found again at the next byte, because the server spoke since.
    is_clients_turn: bool,
    /// Whether a lost server may be found again at the next byte, because a request was seen since.
    is_servers_turn: bool,
}

impl<R: Direction> Sides<R> {
    /// Of a connection that is seen from its beginning, or was joined in the middle.
    pub(crate) fn new(trust: Trust) -> Self {
        let [client, server] = [Part::Client, Part::Server].map(|part| reader(part, trust != Trust::Certain));
        Self { client, server, is_clients_turn: true, is_servers_turn: false }
    }

    pub(crate) const fn of(&self, part: Part) -> &R {
        match part {
            Part::Client => &self.client,
            Part::Server => &self.server,
        }
    }

    pub(crate) const fn of_mut(&mut self, part: Part) -> &mut R {
        match part {
            Part::Client => &mut self.client,
            Part::Server => &mut self.server,
        }
    }

    /// Whether what a side says is understood; otherwise it is another protocol by now, or lost.
    pub(crate) fn understands(&self, part: Part) -> bool {
        let side = self.of(part);
        !side.is_lost() && !side.is_opaque()
    }

    /// What follows is another protocol, in both directions.
    pub(crate) fn become_opaque(&mut self) {
        self.client.become_opaque();
        self.server.become_opaque();
    }

    /// A side says something. Gives back whether it is understood anew from here on, so that what it had begun is void.
    pub(crate) fn speaks(&mut self, part: Part, data: &[u8], trust: Trust) -> bool {
        if part == Part::Server {
            self.is_clients_turn = true;
            let is_found = self.is_servers_turn && self.server.is_lost() && !data.is_empty();
            if is_found {
                self.server.find_again();
                self.is_servers_turn = false;
            }
            return is_found;
        }
        if !self.is_clients_turn || data.is_empty() {
            return false;
        }
        self.is_clients_turn = false;
        // Where the beginning was guessed, what did not become a request before the server spoke was none.
        let was_wrong = trust != Trust::Certain && self.client.may_be_wrong();
        let is_found = self.client.is_lost() || was_wrong;
        if is_found {
            self.client.find_again();
        }
        is_found
    }

    /// Takes note of bytes that are not there. Gives back whether it is still known where things begin and end.
    pub(crate) fn gap(&mut self, part: Part, length: u64) -> bool {
        self.is_clients_turn |= part == Part::Server;
        self.of_mut(part).gap(length)
    }

    /// A request was seen. Where that is not certain to be the only one, the client waits for answers as far as is known: so what
    /// the server says next is the beginning of one. Gives back whether an answer that was being read is void.
    pub(crate) fn answers_begin_anew(&mut self, trust: Trust) -> bool {
        if trust == Trust::Certain || self.server.is_opaque() {
            return false;
        }
        self.is_servers_turn = true;
        let was_within = !self.server.is_between();
        if was_within {
            self.server.lose();
        }
        was_within
    }

    /// The boundary of a message was lost.
    pub(crate) fn lose(&mut self, part: Part) {
        self.of_mut(part).lose();
        match part {
            Part::Client => self.is_clients_turn = false,
            Part::Server => self.is_servers_turn = false,
        }
    }
}

/// A reader of one direction, from the beginning of the connection or from the middle of it.
pub(crate) fn reader<R: Direction>(part: Part, is_joined: bool) -> R {
    let mut reader = R::of(part);
    if is_joined {
        reader.lose();
    }
    reader
}

/// What one side says, while it is being read.
#[derive(Debug)]
pub(crate) struct Saying<'d> {
    at: Moment,
    rest: &'d [u8],
}

/// A step of a reader, how many bytes it took, and where what follows them begins.
#[derive(Debug)]
pub(crate) struct Taken<S> {
    pub(crate) step: Option<S>,
    pub(crate) used: u64,
    pub(crate) now: Moment,
}

impl<'d> Saying<'d> {
    pub(crate) const fn new(at: Moment, data: &'d [u8]) -> Self {
        Self { at, rest: data }
    }

    /// The next step of whoever reads it.
    pub(crate) fn step<R: Direction>(&mut self, reader: &mut R) -> Taken<R::Step<'d>> {
        let before = self.rest.len();
        let step = reader.step(&mut self.rest);
        let used = before - self.rest.len();
        self.at = self.at.behind(used);
        Taken { step, used: used as u64, now: self.at }
    }
}
