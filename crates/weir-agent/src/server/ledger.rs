//! `GET /api/v1/ledger`.

use axum::{Json, extract::State};
use weir_api::ledger::{
    ConsumerLedger, Count, Dropped, EarlierLedger, LedgerAnswer, MessageLedger, PointLedger, Tally,
};

use super::{
    Answers,
    snapshot::{Place, Snapshot},
    status::time,
};
use crate::{
    batch,
    ledger::{Loss, Page},
};

/// What every observation point saw, and what became of it.
#[utoipa::path(
    get,
    path = "/api/v1/ledger",
    tag = "state",
    responses((status = 200, description = "The ledger of every point", body = LedgerAnswer))
)]
pub(super) async fn answer(State(answers): State<Answers>) -> Json<LedgerAnswer> {
    let snapshot = Snapshot::take(&answers);
    let points = snapshot.places.iter().map(|place| point(place, &snapshot)).collect();
    let earlier = snapshot
        .outlets
        .iter()
        .map(|(outlet, pages)| (outlet, pages.earlier(), pages.damaged()))
        .filter(|(_, page, damaged)| *page != Page::default() || *damaged > 0)
        .map(|(outlet, page, damaged_places)| EarlierLedger {
            consumer: outlet.name.to_string(),
            found: tally(page.offered),
            delivered: tally(page.delivered),
            spooled: tally(page.spooled),
            dropped: dropped(&page),
            damaged_places,
        })
        .collect();
    Json(LedgerAnswer {
        time: time(snapshot.time),
        is_balanced: snapshot.is_balanced(),
        points,
        earlier,
        dns: snapshot.dns.as_ref().map(|dns| messages(dns.ledger)),
    })
}

fn messages(ledger: weir_datapath::dns::DnsLedger) -> MessageLedger {
    MessageLedger {
        seen: ledger.seen,
        written: ledger.written,
        lost: ledger.lost,
        unreadable: ledger.unreadable,
    }
}

fn point(place: &Place, snapshot: &Snapshot) -> PointLedger {
    let ledger = &place.ledger;
    let consumers = place.consumers.iter().zip(&snapshot.outlets);
    PointLedger {
        interface: place.point.as_ref().map(|point| point.interface.to_string()),
        netns: place.point.as_ref().and_then(|point| point.netns.as_deref().map(str::to_owned)),
        direction: place.direction.to_string(),
        role: place.role.to_string(),
        is_open: place.is_open,
        seen: count(ledger.seen),
        flows: count(ledger.flows),
        filtered: count(ledger.filtered),
        duplicate: count(ledger.duplicate),
        non_ip: count(ledger.non_ip),
        parse_error: count(ledger.parse_error),
        overflow: count(ledger.overflow),
        held: count(place.held()),
        told: tally(place.passage.offered),
        dismissed: tally(place.passage.filtered),
        consumers: consumers.map(|(page, (outlet, _))| consumer(&outlet.name, page)).collect(),
        is_balanced: place.is_balanced(&snapshot.outlets),
    }
}

fn consumer(name: &str, page: &Page) -> ConsumerLedger {
    ConsumerLedger {
        consumer: name.to_owned(),
        offered: tally(page.offered),
        delivered: tally(page.delivered),
        filtered: tally(page.filtered),
        spooled: tally(page.spooled),
        waiting: tally(page.waiting()),
        dropped: dropped(page),
    }
}

fn dropped(page: &Page) -> Dropped {
    let dropped = |loss: Loss| tally(page.dropped[loss as usize]);
    Dropped {
        queue_full: dropped(Loss::QueueFull),
        rejected: dropped(Loss::Rejected),
        stopped: dropped(Loss::Stopped),
        spool_full: dropped(Loss::SpoolFull),
        spool_damaged: dropped(Loss::SpoolDamaged),
    }
}

/// A count as clients get it.
pub(super) fn count(count: weir_flow::Count) -> Count {
    Count { packets: count.packets, bytes: count.bytes }
}

fn tally(tally: batch::Tally) -> Tally {
    Tally { records: tally.records, packets: tally.count.packets, bytes: tally.count.bytes }
}
