//! The attaching thread: loads the programs, puts them on interfaces, and follows these as they come and go.
//!
//! Uplinks come first. What cannot be attached is told once and left out; that everything failed ends the program.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread::JoinHandle,
};

use rustix::event::{PollFd, PollFlags, poll};
use weir_datapath::{
    flow::{AttachError, Attached, Device, FlowAttacher},
    interface::{Interface, Interfaces, Kind, LinkEvent, LinkStats, Watcher},
    netns::Netns,
    packets::PacketAttacher,
    witness::{self, Class, Counted},
};
use weir_flow::{Count, Direction, Point, Role};

use super::{LiveError, Message, Messages, Plan, Wanted, Witness, spawn};
use crate::causes::with_causes;

/// Orders that may wait: one to stop, one for each drain.
const ORDERS: usize = 16;

enum Order {
    /// These interfaces are gone and read to the end.
    Forget(Vec<u32>),
    /// Take everything off.
    Stop,
}

/// The attaching thread, seen from others.
#[derive(Clone)]
pub(super) struct Attaching {
    orders: SyncSender<Order>,
    wake: Arc<UnixStream>,
    progress: Arc<Progress>,
}

/// How many interfaces are counted, and how many should be.
#[derive(Debug, Default)]
pub struct Progress {
    attached: AtomicUsize,
    wanted: AtomicUsize,
}

impl Progress {
    /// Interfaces that are counted, and how many should be.
    pub fn get(&self) -> (usize, usize) {
        (self.attached.load(Ordering::Relaxed), self.wanted.load(Ordering::Relaxed))
    }
}

/// Programs that can be put on interfaces, in the network namespace of the calling thread.
pub trait Programs: 'static {
    /// Puts them on an interface.
    fn attach(&mut self, device: &Device, wanted: Wanted) -> Result<Attached, AttachError>;
    /// Takes them off again.
    fn detach(&mut self, index: u32);
    /// Takes them off everywhere.
    fn detach_all(&mut self);
    /// Tells them of an interface whose packets count elsewhere; false if they cannot know.
    fn mark_counted(&mut self, _device: &Device) -> bool {
        false
    }
    /// Takes that back.
    fn unmark_counted(&mut self, _index: u32) {}
    /// Forgets interfaces that are gone and read to the end.
    fn forget(&mut self, _freed: &[u32]) {}
}

impl Programs for FlowAttacher {
    fn attach(&mut self, device: &Device, wanted: Wanted) -> Result<Attached, AttachError> {
        Self::attach(self, device, wanted.directions, wanted.deduplicate)
    }

    fn detach(&mut self, index: u32) {
        Self::detach(self, index);
    }

    fn detach_all(&mut self) {
        Self::detach_all(self);
    }

    fn mark_counted(&mut self, device: &Device) -> bool {
        // Without this, packets that a bridge forwards count once more when they leave, which is no loss.
        Self::mark_counted(self, device).is_ok()
    }

    fn unmark_counted(&mut self, index: u32) {
        Self::unmark_counted(self, index);
    }

    fn forget(&mut self, freed: &[u32]) {
        self.forget_drained(freed);
    }
}

impl Programs for PacketAttacher {
    fn attach(&mut self, device: &Device, wanted: Wanted) -> Result<Attached, AttachError> {
        Self::attach(self, device, wanted.directions)
    }

    fn detach(&mut self, index: u32) {
        Self::detach(self, index);
    }

    fn detach_all(&mut self) {
        Self::detach_all(self);
    }
}

impl Attaching {
    /// Starts the thread. What reads from the programs comes through `loaded`; when everything is taken off, `let_go` is
    /// dropped.
    pub(super) fn start<P: Programs, R: Send + 'static>(
        plan: Plan,
        load: impl FnOnce() -> Result<(P, R), LiveError> + Send + 'static,
        messages: Messages,
        loaded: SyncSender<Result<R, LiveError>>,
        let_go: SyncSender<()>,
    ) -> Result<(Self, JoinHandle<()>), LiveError> {
        let (orders, received) = sync_channel(ORDERS);
        let (wake, woken) = UnixStream::pair().map_err(LiveError::Wake)?;
        wake.set_nonblocking(true).map_err(LiveError::Wake)?;
        woken.set_nonblocking(true).map_err(LiveError::Wake)?;
        let progress = Arc::new(Progress::default());
        let inbox = Inbox { orders: received, woken };
        let shared = Arc::clone(&progress);
        let thread = spawn("attach", move || {
            let netns = plan.netns.clone();
            let failed = loaded.clone();
            let work = move || {
                let outcome = load().and_then(|(programs, reader)| {
                    let thread = Thread::new(plan, programs, messages.clone(), shared)?;
                    Ok((thread, reader))
                });
                match outcome {
                    Ok((mut thread, reader)) => {
                        if loaded.send(Ok(reader)).is_ok()
                            && let Err(error) = thread.run(&inbox)
                        {
                            messages.send(Message::Failed(error));
                            thread.take_off();
                        }
                    }
                    Err(error) => drop(loaded.send(Err(error))),
                }
            };
            match netns {
                None => work(),
                Some(netns) => {
                    if let Err(error) = netns.run(work) {
                        // Either nobody has heard of a reader yet, or nobody waits for one any more.
                        drop(failed.send(Err(error.into())));
                    }
                }
            }
            drop(let_go);
        })?;
        Ok((Self { orders, wake: Arc::new(wake), progress }, thread))
    }

    /// Interfaces that are counted, and how many should be.
    pub(super) fn progress(&self) -> (usize, usize) {
        self.progress.get()
    }

    /// The same for somebody who looks at another time.
    pub(super) fn progress_handle(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Lets it take everything off and end.
    pub(super) fn stop(&self) {
        self.order(Order::Stop);
    }

    /// Tells it which interfaces are gone and read to the end.
    pub(super) fn forget(&self, freed: Vec<u32>) {
        if !freed.is_empty() {
            self.order(Order::Forget(freed));
        }
    }

    fn order(&self, order: Order) {
        // If the thread has ended, it has done what any order could ask for. A full socket wakes it just as well.
        if self.orders.send(order).is_ok() {
            (&*self.wake).write_all(&[0]).ok();
        }
    }
}

struct Inbox {
    orders: Receiver<Order>,
    woken: UnixStream,
}

impl Inbox {
    /// The next order, if one waits. Nobody left to give orders means the end.
    fn next(&self) -> Option<Order> {
        match self.orders.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Order::Stop),
        }
    }

    /// Waits until an order or an event of an interface comes.
    fn wait(&self, watcher: &Watcher) -> Result<(), LiveError> {
        let mut waiting = [PollFd::new(&self.woken, PollFlags::IN), PollFd::new(watcher, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(LiveError::Wait(error.into())),
        }
        // Emptied before orders are looked at, so that none is missed.
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(1..)) {}
        Ok(())
    }
}

/// An interface that is counted.
struct Held {
    name: Arc<str>,
    role: Role,
    wanted: Wanted,
    points: Vec<Arc<Point>>,
    classes: [Class; 2],
    /// What passed before, as it counted itself: since Weir started, or since it appeared or was let go after that.
    unseen: LinkStats,
    /// What it had counted itself just before and just after, if it could be asked.
    start: Option<(LinkStats, LinkStats)>,
}

struct Thread<P> {
    plan: Plan,
    programs: P,
    messages: Messages,
    progress: Arc<Progress>,
    watcher: Watcher,
    interfaces: Interfaces,
    held: HashMap<u32, Held>,
    /// What could not be attached, by index, with what was told about it.
    refused: HashMap<u32, String>,
    pending: VecDeque<Interface>,
    /// Bridges whose packets count at their ports.
    bridges: HashSet<u32>,
    /// Interfaces that were refused for want of room.
    waiting: HashSet<u32>,
    /// What interfaces had counted when nobody was looking for the first time, or again.
    unseen_since: HashMap<u32, LinkStats>,
}

impl<P: Programs> Thread<P> {
    fn new(plan: Plan, programs: P, messages: Messages, progress: Arc<Progress>) -> Result<Self, LiveError> {
        let netns = match &plan.netns {
            Some(netns) => netns.clone(),
            None => Netns::current()?,
        };
        let watcher = Watcher::open(&netns)?;
        Ok(Self {
            unseen_since: watcher.interfaces().map(|it| (it.index, it.stats)).collect(),
            watcher,
            interfaces: Interfaces::open(&netns)?,
            plan,
            programs,
            messages,
            progress,
            held: HashMap::new(),
            refused: HashMap::new(),
            pending: VecDeque::new(),
            bridges: HashSet::new(),
            waiting: HashSet::new(),
        })
    }

    fn run(&mut self, inbox: &Inbox) -> Result<(), LiveError> {
        let mut present: Vec<Interface> = self.watcher.interfaces().cloned().collect();
        present.sort_by_key(|interface| interface.role != Role::Uplink);
        self.pending.extend(present);
        let mut is_start = true;
        loop {
            while let Some(order) = inbox.next() {
                match order {
                    Order::Forget(freed) => {
                        self.programs.forget(&freed);
                        self.try_again();
                    }
                    Order::Stop => {
                        self.take_off();
                        return Ok(());
                    }
                }
            }
            self.tell_progress();
            if let Some(interface) = self.pending.pop_front() {
                self.consider(&interface, is_start);
                continue;
            }
            self.mark_bridges();
            if is_start {
                is_start = false;
                self.end_of_start()?;
            }
            inbox.wait(&self.watcher)?;
            for event in self.watcher.next_events()? {
                match event {
                    LinkEvent::Removed { index, name } => self.gone(index, &name),
                    LinkEvent::New(interface)
                    | LinkEvent::Renamed { interface, .. }
                    | LinkEvent::Changed(interface) => self.pending.push_back(interface),
                }
            }
            // A bridge with a new port is not counted as a whole until that port is.
            self.mark_bridges();
        }
    }

    /// That nothing at all could be attached is a failure; that there is nothing to attach is not.
    fn end_of_start(&mut self) -> Result<(), LiveError> {
        if !self.held.is_empty() {
            return Ok(());
        }
        if let Some(reason) = self.refused.values().next() {
            return Err(LiveError::NothingAttached(reason.clone()));
        }
        self.messages
            .note("there is nothing to watch yet: no container edge, uplink, tunnel or loopback".to_owned());
        Ok(())
    }

    /// Makes what is held of an interface what is wanted of it.
    fn consider(&mut self, interface: &Interface, is_start: bool) {
        let wanted = self.plan.wanted(interface);
        let was_held = self.held.contains_key(&interface.index);
        if let Some(held) = self.held.get(&interface.index) {
            let is_right =
                wanted == Some(held.wanted) && held.name == interface.name && held.role == interface.role;
            if is_right {
                return;
            }
            self.detach(interface.index);
        }
        let Some(wanted) = wanted else { return };
        match self.attach(interface, wanted) {
            Ok(()) => {
                self.refused.remove(&interface.index);
                if !is_start && !was_held {
                    self.messages.note(format!("counting {}", interface.name));
                }
            }
            Err(AttachError::Gone(name)) if was_held => self.tell_gone(&name),
            // Its end is the next event.
            Err(AttachError::Gone(_)) => {}
            Err(error) => {
                if error.is_passing() {
                    self.waiting.insert(interface.index);
                }
                let text = with_causes(&error);
                if self.refused.insert(interface.index, text.clone()).as_ref() != Some(&text) {
                    self.messages.note(text);
                }
            }
        }
    }

    /// Gives interfaces another chance that were refused for want of room.
    fn try_again(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.pending.extend(self.watcher.interfaces().filter(|it| waiting.contains(&it.index)).cloned());
    }

    /// Marks the bridges all of whose ports are counted where packets come in, and have one role: what such a bridge hands
    /// on was counted for that role. What other bridges hand on counts where it leaves, rather than nowhere.
    fn mark_bridges(&mut self) {
        let bridges = self.watcher.interfaces().filter(|it| self.plan.may_count_at_ports(it));
        let counted: Vec<Device> = bridges
            .filter_map(|bridge| {
                let mut ports = self.watcher.interfaces().filter(|port| port.master == Some(bridge.index));
                let role = self.role_of_port(ports.next()?)?;
                let is_counted = ports.all(|port| self.role_of_port(port) == Some(role));
                is_counted.then(|| Device { role, ..device(bridge) })
            })
            .collect();
        let bridges: Vec<u32> = self.bridges.iter().copied().collect();
        for index in bridges {
            if !counted.iter().any(|bridge| bridge.index == index) {
                self.unmark_bridge(index);
            }
        }
        for bridge in counted {
            if !self.bridges.contains(&bridge.index) && self.programs.mark_counted(&bridge) {
                self.bridges.insert(bridge.index);
            }
        }
    }

    /// The role for which what comes in at a port counts; for a VLAN that of the card below it. `None` if it does not.
    fn role_of_port(&self, port: &Interface) -> Option<Role> {
        let below = if port.kind == Kind::Vlan { port.link_index } else { None };
        let held = self.held.get(&port.index).or_else(|| self.held.get(&below?))?;
        held.wanted.directions.contains(Direction::Ingress).then_some(held.role)
    }

    fn unmark_bridge(&mut self, index: u32) {
        if self.bridges.remove(&index) {
            self.programs.unmark_counted(index);
        }
    }

    fn attach(&mut self, interface: &Interface, wanted: Wanted) -> Result<(), AttachError> {
        let before = self.stats(interface.index);
        let attached = self.programs.attach(&device(interface), wanted)?;
        let after = self.stats(interface.index);
        let offloads = self.interfaces.offloads(&interface.name);
        let unseen = self.unseen_since.remove(&interface.index).unwrap_or_default();
        let held = Held {
            unseen: before.map_or_else(LinkStats::default, |before| before - unseen),
            name: Arc::clone(&interface.name),
            role: interface.role,
            wanted,
            points: attached.points,
            classes: Direction::ALL.map(|direction| witness::class(interface, offloads, direction)),
            start: before.zip(after),
        };
        self.held.insert(interface.index, held);
        Ok(())
    }

    fn gone(&mut self, index: u32, name: &Arc<str>) {
        self.pending.retain(|interface| interface.index != index);
        self.refused.remove(&index);
        self.waiting.remove(&index);
        self.unseen_since.remove(&index);
        if self.held.remove(&index).is_some() {
            self.programs.detach(index);
            self.tell_gone(name);
        }
    }

    fn tell_gone(&self, name: &Arc<str>) {
        let waiting = self.plan.exact_names().filter(|_| self.held.is_empty());
        self.messages.note(match waiting {
            Some(names) => format!("{name} is gone; waiting for {} to come back", names.join(", ")),
            None => format!("{name} is gone"),
        });
    }

    /// Stops counting an interface that is still there, and lets it witness what was counted.
    fn detach(&mut self, index: u32) {
        let Some(held) = self.held.remove(&index) else { return };
        // Nothing is to be taken for counted that no longer is.
        self.mark_bridges();
        let before = self.stats(index);
        self.programs.detach(index);
        let after = self.stats(index);
        self.unseen_since.extend(after.map(|after| (index, after)));
        self.testify(held, before.zip(after));
    }

    /// Stops counting everywhere. All are asked at once: two lists take less time than two questions to each of hundreds.
    fn take_off(&mut self) {
        for index in std::mem::take(&mut self.bridges) {
            self.programs.unmark_counted(index);
        }
        let before = self.all_stats();
        self.programs.detach_all();
        let after = self.all_stats();
        for (index, held) in std::mem::take(&mut self.held) {
            let end = before.get(&index).copied().zip(after.get(&index).copied());
            self.testify(held, end);
        }
    }

    /// Hands on what an interface counted itself, if it could be asked at both ends.
    fn testify(&self, held: Held, end: Option<(LinkStats, LinkStats)>) {
        let Some((start, end)) = held.start.zip(end) else { return };
        let counted = Counted::between(start, end);
        for point in held.points {
            let class = held.classes[usize::from(point.direction == Direction::Egress)];
            let before = match point.direction {
                Direction::Ingress => held.unseen.rx,
                Direction::Egress => held.unseen.tx,
            };
            let before = Count { packets: before.packets, bytes: before.bytes };
            self.messages.send(Message::Witness(Witness { point, class, counted, before }));
        }
    }

    fn all_stats(&mut self) -> HashMap<u32, LinkStats> {
        let listed = self.interfaces.list().unwrap_or_default();
        listed.into_iter().map(|interface| (interface.index, interface.stats)).collect()
    }

    /// What an interface counted itself, unless it is gone.
    fn stats(&mut self, index: u32) -> Option<LinkStats> {
        self.interfaces.stats(index).ok().flatten()
    }

    fn tell_progress(&self) {
        let waiting = self
            .pending
            .iter()
            .filter(|it| !self.held.contains_key(&it.index) && self.plan.wanted(it).is_some());
        let wanted = self.held.len() + self.refused.len() + waiting.count();
        self.progress.attached.store(self.held.len(), Ordering::Relaxed);
        self.progress.wanted.store(wanted, Ordering::Relaxed);
    }
}

fn device(interface: &Interface) -> Device {
    Device {
        index: interface.index,
        name: Arc::clone(&interface.name),
        link: interface.link,
        role: interface.role,
    }
}
