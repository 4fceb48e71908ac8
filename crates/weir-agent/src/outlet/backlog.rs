//! [`Backlog`]: what waits between the thread that writes the spool and the one that delivers from it.
//!
//! Every batch goes to the disk first and is delivered after that, so that the death of the process loses nothing. As
//! many as there is room for stay in memory as well, so that a sink that keeps up costs no reading. While the disk
//! refuses, full most likely, batches wait in memory alone (*loose*), and the disk is tried again with each that comes:
//! once it takes batches, those that wait go first.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Batching, Parcel, ParcelId,
    patience::Patience,
    spool::{Evicted, Place, Spool, SpoolConfig, SpoolError, Taken, random},
};
use crate::{
    batch::Batch,
    causes::with_causes,
    journal,
    ledger::{Account, Loss, Origin},
};

/// Time between two attempts to open a spool.
const RETRY: Duration = Duration::from_secs(1);

/// Time between two looks at whether patience is over.
const LOOK: Duration = Duration::from_millis(200);

/// Batches on their way through a spool.
#[derive(Debug)]
pub(super) struct Backlog {
    name: Arc<str>,
    inner: Mutex<Inner>,
    changed: Condvar,
    account: Arc<Account>,
    /// Numbers for those who look: they must not wait for a disk.
    pub(super) pending_bytes: AtomicU64,
    pub(super) loose_records: AtomicUsize,
    trouble: Mutex<Trouble>,
}

/// Why the disk does not do what it should.
#[derive(Debug, Default)]
struct Trouble {
    writing: Option<String>,
    reading: Option<String>,
}

/// What is done with the disk.
#[derive(Clone, Copy, Debug)]
enum Work {
    Writing,
    Reading,
}

#[derive(Debug)]
struct Inner {
    config: SpoolConfig,
    run: u64,
    most_records: usize,
    spool: Option<Spool>,
    next_try: Option<Instant>,
    /// Batches that are on no disk and that nobody has seen, oldest first.
    loose: VecDeque<Loose>,
    loose_count: u64,
    /// Batches that are on disk too, in the order of the disk.
    kept: VecDeque<Kept>,
    /// Records of both.
    memory_records: usize,
    /// Whether nothing is added any more.
    is_closed: bool,
    is_abandoned: bool,
}

#[derive(Debug)]
struct Loose {
    batch: Arc<Batch>,
    /// What it looks like on disk, until the first attempt.
    frame: Option<Vec<u8>>,
    /// The spool is too small for it.
    is_too_large: bool,
}

#[derive(Debug)]
struct Kept {
    place: Place,
    bytes: u64,
    batch: Arc<Batch>,
}

impl Backlog {
    /// Opens nothing yet.
    pub(super) fn new(
        name: Arc<str>,
        config: SpoolConfig,
        most_records: usize,
        account: Arc<Account>,
    ) -> Self {
        let inner = Inner {
            config,
            run: random(),
            most_records,
            spool: None,
            next_try: None,
            loose: VecDeque::new(),
            loose_count: 0,
            kept: VecDeque::new(),
            memory_records: 0,
            is_closed: false,
            is_abandoned: false,
        };
        Self {
            name,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            account,
            pending_bytes: AtomicU64::new(0),
            loose_records: AtomicUsize::new(0),
            trouble: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the spool, if that has not been done, so that what an earlier run left is delivered.
    pub(super) fn open(&self) {
        let mut inner = self.inner();
        self.ensure_open(&mut inner);
        self.tell(&inner);
    }

    /// Adds a batch.
    pub(super) fn put(&self, batch: Arc<Batch>) {
        // Takes a while for a large one, and somebody may want to take another meanwhile.
        let frame = Some(Spool::frame(&batch));
        let mut inner = self.inner();
        if inner.is_abandoned {
            return;
        }
        inner.memory_records += batch.records.len();
        inner.loose.push_back(Loose { batch, frame, is_too_large: false });
        self.move_to_disk(&mut inner);
        drop(inner);
        self.changed.notify_all();
    }

    /// Tries the disk again with what it did not take.
    pub(super) fn retry(&self) {
        let mut inner = self.inner();
        if !inner.is_abandoned && !inner.loose.is_empty() {
            self.move_to_disk(&mut inner);
        }
    }

    /// Appends what is in memory alone to the spool, the oldest first, as far as it takes it.
    fn move_to_disk(&self, inner: &mut Inner) {
        self.ensure_open(inner);
        let mut evicted = Vec::new();
        let mut place = 0;
        while let Some(spool) = &mut inner.spool
            && let Some(loose) = inner.loose.get_mut(place)
        {
            if loose.is_too_large {
                place += 1;
                continue;
            }
            let frame = loose.frame.take().unwrap_or_else(|| Spool::frame(&loose.batch));
            match spool.append(&frame, &loose.batch, &mut evicted) {
                Ok((disk, _)) => {
                    let batch = Arc::clone(&loose.batch);
                    inner.loose.remove(place);
                    inner.memory_records -= batch.records.len();
                    self.account.spooled(&batch.tallies);
                    inner.keep(Kept { place: disk, bytes: frame.len() as u64, batch });
                    self.mend(Work::Writing);
                }
                Err(error @ SpoolError::TooLarge { .. }) => {
                    loose.is_too_large = true;
                    self.fails(Work::Writing, &error);
                }
                Err(error) => {
                    self.fails(Work::Writing, &error);
                    break;
                }
            }
        }
        if !evicted.is_empty() {
            inner.forget_evicted();
        }
        for Evicted { tallies, is_earlier } in evicted {
            self.account.dropped_from(&tallies, Loss::SpoolFull, origin(is_earlier));
        }
        inner.bound_memory(&self.account);
        self.tell(inner);
    }

    /// Waits for what is to be brought next; nothing if nothing comes until then. `None` when there is nothing any more, or
    /// patience is over.
    pub(super) fn take(
        &self,
        batching: &Batching,
        patience: &Patience,
        until: Option<Instant>,
    ) -> Option<Vec<(Parcel, Origin)>> {
        let mut since = None;
        let mut inner = self.inner();
        loop {
            if inner.is_abandoned || patience.is_over() {
                return None;
            }
            self.ensure_open(&mut inner);
            let (records, bytes) = inner.available();
            if inner.has_some() {
                let since = *since.get_or_insert_with(Instant::now);
                let is_enough = records >= batching.records as u64 || bytes >= batching.bytes;
                let left = (since + batching.time).saturating_duration_since(Instant::now());
                if is_enough || inner.is_closed || left.is_zero() {
                    let group = self.collect(&mut inner, batching);
                    if !group.is_empty() {
                        return Some(group);
                    }
                    // Everything was damaged, or the disk does not give it back at present. The next run may have it.
                    if inner.has_some() {
                        if inner.is_closed && inner.loose.is_empty() {
                            return None;
                        }
                        inner = self.wait(inner, LOOK);
                    }
                    continue;
                }
                inner = self.wait(inner, left);
            } else if inner.is_closed {
                return None;
            } else {
                let left = until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()));
                if left.is_zero() {
                    return Some(Vec::new());
                }
                inner = self.wait(inner, left);
            }
        }
    }

    fn wait<'i>(&self, inner: MutexGuard<'i, Inner>, time: Duration) -> MutexGuard<'i, Inner> {
        let waited = self.changed.wait_timeout(inner, time.min(LOOK));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn collect(&self, inner: &mut Inner, batching: &Batching) -> Vec<(Parcel, Origin)> {
        let (mut group, mut records, mut bytes) = (Vec::new(), 0, 0);
        // Those on no disk first: they are in danger.
        while records < batching.records
            && let Some(Loose { batch, .. }) = inner.loose.pop_front()
        {
            records += batch.records.len();
            inner.memory_records -= batch.records.len();
            inner.loose_count += 1;
            let id = ParcelId(u128::from(inner.run) << 64 | u128::from(inner.loose_count));
            group.push((Parcel { id, batch }, Origin::Memory));
        }
        while records < batching.records && bytes < batching.bytes {
            let taken = inner.next_of_disk();
            if let Ok(Some(_)) = taken {
                self.mend(Work::Reading);
            }
            match taken {
                Ok(Some(Taken::Batch { id, batch, is_earlier, bytes: more })) => {
                    records += batch.records.len();
                    bytes += more;
                    group.push((Parcel { id, batch }, origin(is_earlier)));
                }
                Ok(Some(Taken::Damaged { place, tallies, is_earlier })) => {
                    journal::error(format_args!("{}: a batch in the spool is damaged: {place}", self.name));
                    self.account.dropped_from(&tallies, Loss::SpoolDamaged, origin(is_earlier));
                }
                Ok(None) => break,
                Err(error) => {
                    self.fails(Work::Reading, &error);
                    break;
                }
            }
        }
        if group.is_empty() {
            // What was damaged is done with.
            self.note_settled(inner, 0);
        }
        self.tell(inner);
        group
    }

    /// So many batches, the oldest of those that were taken from the disk, are done with.
    pub(super) fn settle(&self, batches: usize) {
        let mut inner = self.inner();
        self.note_settled(&mut inner, batches);
        self.tell(&inner);
    }

    fn note_settled(&self, inner: &mut Inner, batches: usize) {
        let settled = inner.spool.as_mut().map_or(Ok(()), |spool| spool.settle(batches));
        if let Err(error) = settled {
            // At worst the same batches are brought again after a restart.
            self.fails(Work::Writing, &error);
        }
    }

    /// Nothing is added any more.
    pub(super) fn close(&self) {
        self.retry();
        self.inner().is_closed = true;
        self.changed.notify_all();
    }

    /// Lets go of the files, so that somebody else may have them. Waits for nobody.
    pub(super) fn abandon(&self) {
        let mut inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return,
        };
        inner.is_abandoned = true;
        inner.spool = None;
        drop(inner);
        self.changed.notify_all();
    }

    /// Whether everything that waits is on disk.
    pub(super) fn is_safe(&self) -> bool {
        let inner = self.inner();
        inner.is_closed && inner.loose.is_empty()
    }

    fn ensure_open(&self, inner: &mut Inner) {
        let now = Instant::now();
        if inner.spool.is_some() || inner.is_abandoned || inner.next_try.is_some_and(|next| now < next) {
            return;
        }
        match Spool::open(&inner.config, inner.run) {
            Ok((spool, opened)) => {
                inner.spool = Some(spool);
                for place in &opened.damaged {
                    journal::error(format_args!("{}: the spool is damaged: {place}", self.name));
                }
                self.account.damaged(opened.damaged.len() as u64);
                if opened.earlier.frames > 0 {
                    self.account.recovered(&opened.earlier.tallies);
                    journal::info(format_args!(
                        "{}: {} records wait in the spool since an earlier run",
                        self.name, opened.earlier.records
                    ));
                }
                self.mend(Work::Writing);
            }
            Err(error) => {
                inner.next_try = Some(now + RETRY);
                self.fails(Work::Writing, &error);
            }
        }
    }

    fn tell(&self, inner: &Inner) {
        let bytes = inner.spool.as_ref().map_or(0, Spool::pending_bytes);
        self.pending_bytes.store(bytes, Ordering::Relaxed);
        let loose = inner.loose.iter().map(|loose| loose.batch.records.len()).sum();
        self.loose_records.store(loose, Ordering::Relaxed);
    }

    /// Why the disk does not do what it should at present.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.writing.clone().or_else(|| trouble.reading.clone())
    }

    /// It works.
    fn mend(&self, work: Work) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.of(work).take().is_some() {
            journal::info(format_args!("{}: {} the spool works again", self.name, work.as_str()));
        }
    }

    /// It does not. Says so once.
    fn fails(&self, work: Work, error: &SpoolError) {
        let text = with_causes(error);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let known = trouble.of(work);
        if known.as_ref() != Some(&text) {
            let meanwhile = match work {
                Work::Writing => "what cannot be spooled waits in memory",
                Work::Reading => "what waits there waits longer",
            };
            journal::warn(format_args!("{}: {text}; {meanwhile}", self.name));
            *known = Some(text);
        }
    }
}

impl Trouble {
    fn of(&mut self, work: Work) -> &mut Option<String> {
        match work {
            Work::Writing => &mut self.writing,
            Work::Reading => &mut self.reading,
        }
    }
}

impl Work {
    fn as_str(self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::Reading => "reading",
        }
    }
}

impl Inner {
    /// Records and bytes that could be taken.
    fn available(&self) -> (u64, u64) {
        let loose: usize = self.loose.iter().map(|loose| loose.batch.records.len()).sum();
        let unread = self.spool.as_ref().map(Spool::unread).unwrap_or_default();
        (unread.records + loose as u64, unread.bytes)
    }

    fn has_some(&self) -> bool {
        !self.loose.is_empty() || self.spool.as_ref().is_some_and(|spool| spool.unread().frames > 0)
    }

    fn keep(&mut self, kept: Kept) {
        let records = kept.batch.records.len();
        if self.memory_records + records <= self.most_records {
            self.memory_records += records;
            self.kept.push_back(kept);
        }
    }

    /// The next batch of the disk, from memory where it is there too.
    fn next_of_disk(&mut self) -> Result<Option<Taken>, SpoolError> {
        let Some(spool) = &mut self.spool else { return Ok(None) };
        let Some(place) = spool.next_place() else { return Ok(None) };
        while let Some(first) = self.kept.front()
            && first.place < place
        {
            self.memory_records -= first.batch.records.len();
            self.kept.pop_front();
        }
        let Some(kept) = self.kept.pop_front_if(|first| first.place == place) else { return spool.take() };
        self.memory_records -= kept.batch.records.len();
        let id = spool.pass(&kept.batch, kept.bytes);
        Ok(Some(Taken::Batch { id, batch: kept.batch, is_earlier: false, bytes: kept.bytes }))
    }

    fn forget_evicted(&mut self) {
        let Some(spool) = &self.spool else { return };
        self.kept.retain(|kept| spool.has(kept.place.segment));
        self.count_memory();
    }

    fn count_memory(&mut self) {
        let loose = self.loose.iter().map(|loose| loose.batch.records.len());
        self.memory_records = loose.chain(self.kept.iter().map(|kept| kept.batch.records.len())).sum();
    }

    /// Forgets what is in memory beyond its bound: first what is on disk too, then the oldest of the rest, which are lost.
    fn bound_memory(&mut self, account: &Account) {
        while self.memory_records > self.most_records {
            if let Some(kept) = self.kept.pop_back() {
                self.memory_records -= kept.batch.records.len();
            } else if self.loose.len() > 1
                && let Some(oldest) = self.loose.pop_front()
            {
                self.memory_records -= oldest.batch.records.len();
                account.dropped(&oldest.batch.tallies, Loss::QueueFull);
            } else {
                break;
            }
        }
    }
}

fn origin(is_earlier: bool) -> Origin {
    if is_earlier { Origin::Earlier } else { Origin::Spool }
}
