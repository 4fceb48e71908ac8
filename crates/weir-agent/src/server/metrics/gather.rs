//! What each metric says of a snapshot.

use std::collections::BTreeMap;

use weir_datapath::{
    dns::DnsLedger,
    drops::{DropCount, DropPlace, Drops},
    programs,
};
use weir_flow::{Count, Ledger, ResponseCode, Role};

use super::{
    super::{Answers, guard::Refusal, snapshot::Snapshot},
    edges, table as metric,
    text::{Distribution, Labels, Text},
};
use crate::{
    causes::with_causes,
    dns::{DURATION_BOUNDS, DnsState, RoleCounts},
    journal,
    kubernetes::ResourceState,
    ledger::{Loss, Pages},
    process,
};

/// All of them.
pub(super) fn all(answers: &Answers, snapshot: &Snapshot) -> String {
    let mut text = Text::default();
    text.family(&metric::BUILD, [(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1)]);
    ledger(snapshot, &mut text);
    kernel(snapshot, &mut text);
    if let Some(drops) = &answers.drops {
        dropped(drops, &mut text);
    }
    table(snapshot, &mut text);
    names(snapshot, &mut text);
    if let Some(dns) = &snapshot.dns {
        lookups(dns, &mut text);
    }
    consumers(snapshot, &mut text);
    spools(snapshot, &mut text);
    let (frames, bytes) = answers.view.size();
    text.single(&metric::LIVE_FRAMES, frames);
    text.single(&metric::LIVE_BYTES, bytes);
    text.single(
        &metric::LIVE_FOLLOWERS,
        super::super::MOST_FOLLOWERS - answers.followers.available_permits(),
    );
    let refused = Refusal::ALL
        .map(|refusal| (vec![("reason", refusal.as_str().to_owned())], answers.refusals.count(refusal)));
    text.family(&metric::REFUSED, refused);
    if let Some(table) = answers.edges.shown() {
        edges::families(table.snapshot(), &mut text);
    }
    let usage = process::usage();
    text.single(&metric::CPU, usage.cpu_seconds);
    text.single(&metric::RESIDENT, usage.resident_bytes);
    text.single(&metric::DESCRIPTORS, process::open_descriptors());
    text.single(&metric::STARTED, seconds(answers.started.0));
    text.finish()
}

fn ledger(snapshot: &Snapshot, text: &mut Text) {
    // An interface that went and came back has several points, which are one series.
    let mut sums: BTreeMap<(String, Option<String>, &str, &str), Ledger> = BTreeMap::new();
    for place in &snapshot.places {
        let interface = place.point.as_ref().map_or("(gone)".to_owned(), |point| point.interface.to_string());
        let netns = place.point.as_ref().and_then(|point| point.netns.as_deref().map(str::to_owned));
        let key = (interface, netns, place.direction.as_str(), place.role.as_str());
        *sums.entry(key).or_default() += place.ledger;
    }
    let mut samples: Vec<(Labels, Count)> = Vec::new();
    for ((interface, netns, direction, role), ledger) in sums {
        for (part, count) in parts(&ledger) {
            // Of most points, most parts stay zero for ever.
            if count == Count::default() && !matches!(part, "seen" | "flows") {
                continue;
            }
            let mut labels = vec![("interface", interface.clone())];
            labels.extend(netns.clone().map(|netns| ("netns", netns)));
            labels.extend(
                [("direction", direction), ("role", role), ("part", part)]
                    .map(|(name, value)| (name, value.to_owned())),
            );
            samples.push((labels, count));
        }
    }
    text.family(
        &metric::LEDGER_PACKETS,
        samples.iter().map(|(labels, count)| (labels.clone(), count.packets)),
    );
    text.family(&metric::LEDGER_BYTES, samples.into_iter().map(|(labels, count)| (labels, count.bytes)));
    text.single(&metric::LEDGER_BALANCED, u8::from(snapshot.is_balanced()));
    text.single(&metric::LEDGER_UNBALANCED, snapshot.unbalanced);
    let (attached, wanted) = snapshot.progress;
    text.single(&metric::INTERFACES_ATTACHED, attached);
    text.single(&metric::INTERFACES_WANTED, wanted);
}

fn parts(ledger: &Ledger) -> [(&'static str, Count); 7] {
    [
        ("seen", ledger.seen),
        ("flows", ledger.flows),
        ("filtered", ledger.filtered),
        ("duplicate", ledger.duplicate),
        ("non_ip", ledger.non_ip),
        ("parse_error", ledger.parse_error),
        ("overflow", ledger.overflow),
    ]
}

fn kernel(snapshot: &Snapshot, text: &mut Text) {
    let drains = &snapshot.drains;
    text.single(&metric::DRAINS, drains.count);
    text.single(&metric::DRAIN_SECONDS, drains.took.as_secs_f64());
    text.single(&metric::DRAIN_WAIT_SECONDS, drains.waited.as_secs_f64());
    text.single(&metric::KERNEL_SLOTS_USED, drains.last.slots_used);
    text.single(&metric::KERNEL_SLOTS, drains.last.slots);
    text.single(&metric::KERNEL_OVERFLOW_USED, drains.last.overflow_used);
    text.single(&metric::KERNEL_OVERFLOW, drains.last.overflow);
    let runs = process::program_runs();
    let names = if runs.is_empty() { BTreeMap::new() } else { programs::names() };
    let labels = |run: &process::ProgramRun| {
        let name = names.get(&run.id).cloned().unwrap_or_default();
        vec![("program_id", run.id.to_string()), ("program", name)]
    };
    text.family(&metric::KERNEL_RUN_SECONDS, runs.iter().map(|run| (labels(run), seconds(run.nanoseconds))));
    text.family(&metric::KERNEL_RUNS, runs.iter().map(|run| (labels(run), run.runs)));
}

fn dropped(drops: &Drops, text: &mut Text) {
    let snapshot = match drops.snapshot() {
        Ok(snapshot) => snapshot,
        Err(error) => {
            journal::warn(format_args!("no counts of dropped packets this time: {}", with_causes(&error)));
            return;
        }
    };
    // Interfaces that come and go may share a name.
    let mut sums: BTreeMap<Labels, u64> = BTreeMap::new();
    for DropCount { reason, place, packets } in &snapshot.counts {
        let mut labels = vec![("reason", reason.to_string())];
        match place {
            DropPlace::Interface { netns, name, .. } => {
                labels.extend([("netns", netns.to_string()), ("interface", name.to_string())]);
            }
            DropPlace::Namespace(netns) => labels.push(("netns", netns.to_string())),
            DropPlace::Unknown | DropPlace::Others => {}
        }
        *sums.entry(labels).or_default() += packets;
    }
    text.family(&metric::KERNEL_DROPPED, sums);
    text.single(&metric::KERNEL_DROPS_SKIPPED, snapshot.skipped);
}

fn table(snapshot: &Snapshot, text: &mut Text) {
    let table = &snapshot.table;
    text.single(&metric::TABLE_FLOWS, table.flows);
    text.single(&metric::TABLE_CAPACITY, table.capacity);
    text.single(&metric::TABLE_BYTES, table.bytes);
    text.single(&metric::FOLDED_PACKETS, table.folded.packets);
    text.single(&metric::FOLDED_BYTES, table.folded.bytes);
    text.single(&metric::TICKS, snapshot.heartbeat.ticks);
    let passage = snapshot.passage.total();
    text.single(&metric::RECORDS, passage.offered.records);
    text.single(&metric::DISMISSED, passage.filtered.records);
}

fn names(snapshot: &Snapshot, text: &mut Text) {
    let misses = snapshot
        .misses
        .iter()
        .map(|miss| (vec![("what", miss.what.to_owned()), ("reason", miss.reason.to_owned())], miss.ends));
    text.family(&metric::MISSES, misses);
    let losses = snapshot
        .losses
        .iter()
        .map(|lost| (vec![("what", lost.what.to_owned()), ("reason", lost.reason.to_owned())], lost.count));
    text.family(&metric::LOST, losses);
    let cluster = &snapshot.kubernetes;
    if cluster.off.is_some() {
        return;
    }
    text.single(&metric::KUBERNETES_PODS, cluster.pods);
    text.single(&metric::KUBERNETES_ADDRESSES, cluster.addresses);
    let label = |name: &str| vec![("resource", name.to_owned())];
    let resources = || cluster.resources.iter();
    let is_current = |state| u8::from(state == ResourceState::Current);
    text.family(
        &metric::KUBERNETES_CURRENT,
        resources().map(|(name, it)| (label(name), is_current(it.state))),
    );
    text.family(&metric::KUBERNETES_LISTS, resources().map(|(name, it)| (label(name), it.lists)));
}

fn lookups(dns: &DnsState, text: &mut Text) {
    let DnsLedger { written, lost, unreadable, .. } = dns.ledger;
    let outcomes = [("written", written), ("lost", lost), ("unreadable", unreadable)];
    text.family(
        &metric::DNS_PACKETS,
        outcomes.map(|(outcome, packets)| (vec![("outcome", outcome.to_owned())], packets)),
    );
    text.single(&metric::DNS_MESSAGES, dns.counts.messages);
    text.single(&metric::DNS_CUT, dns.counts.cut);
    let label = |role: Role| ("role", role.as_str().to_owned());
    let roles = || {
        let roles = Role::ALL.map(|role| (role, dns.counts.role(role)));
        roles.into_iter().filter(|(_, counts)| **counts != RoleCounts::default())
    };
    text.family(
        &metric::DNS_QUERIES,
        roles().flat_map(|(role, counts)| {
            let codes = ResponseCode::ALL.map(|code| (code, counts.answered[usize::from(code.number())]));
            let present = codes.into_iter().filter(|(_, count)| *count > 0);
            present.map(move |(code, count)| (vec![label(role), ("rcode", code.name().to_owned())], count))
        }),
    );
    text.family(
        &metric::DNS_UNANSWERED,
        roles().map(|(role, counts)| (vec![label(role)], counts.unanswered)),
    );
    text.histogram(
        &metric::DNS_DURATION,
        roles().map(|(role, counts)| {
            let bounds = DURATION_BOUNDS.iter().map(|bound| seconds(*bound)).zip(counts.durations).collect();
            let (sum, count) = (counts.duration.as_secs_f64(), counts.all_answered());
            (vec![label(role)], Distribution { bounds, sum, count })
        }),
    );
    text.single(&metric::DNS_PENDING, dns.fill.lookups);
    text.single(&metric::DNS_NAMES, dns.fill.names);
}

fn consumers(snapshot: &Snapshot, text: &mut Text) {
    let all: Vec<_> = snapshot.outlets.iter().map(|(state, pages)| (state, pages.total())).collect();
    let label = |name: &str| vec![("consumer", name.to_owned())];
    text.family(&metric::OFFERED, all.iter().map(|(state, page)| (label(&state.name), page.offered.records)));
    text.family(
        &metric::DELIVERED,
        all.iter().map(|(state, page)| (label(&state.name), page.delivered.records)),
    );
    text.family(
        &metric::FILTERED,
        all.iter().map(|(state, page)| (label(&state.name), page.filtered.records)),
    );
    let losses = || {
        all.iter().flat_map(|(state, page)| {
            Loss::ALL.map(|loss| {
                let labels = vec![("stage", state.name.to_string()), ("reason", loss.as_str().to_owned())];
                (labels, page.dropped[loss as usize])
            })
        })
    };
    text.family(&metric::DROPPED, losses().map(|(labels, tally)| (labels, tally.records)));
    text.family(&metric::DROPPED_PACKETS, losses().map(|(labels, tally)| (labels, tally.count.packets)));
    text.family(&metric::WAITING, all.iter().map(|(state, _)| (label(&state.name), state.waiting)));
    text.family(&metric::QUEUE, all.iter().map(|(state, _)| (label(&state.name), state.most_waiting)));
    text.family(
        &metric::BEHIND,
        snapshot
            .outlets
            .iter()
            .map(|(state, pages)| (label(&state.name), snapshot.behind_seconds(state, pages))),
    );
    text.family(&metric::ATTEMPTS, all.iter().map(|(state, _)| (label(&state.name), state.attempts)));
    text.family(&metric::FAILURES, all.iter().map(|(state, _)| (label(&state.name), state.failures)));
}

/// What only sinks with a spool have.
fn spools(snapshot: &Snapshot, text: &mut Text) {
    let all: Vec<_> = snapshot
        .outlets
        .iter()
        .filter_map(|(state, pages)| {
            Some((vec![("sink", state.name.to_string())], state.spool.as_ref()?, pages))
        })
        .collect();
    let records = |pages: &Pages| pages.total().spooled.records + pages.earlier().spooled.records;
    text.family(&metric::SPOOL_RECORDS, all.iter().map(|(label, _, pages)| (label.clone(), records(pages))));
    text.family(&metric::SPOOL_BYTES, all.iter().map(|(label, spool, _)| (label.clone(), spool.bytes)));
    text.family(&metric::SPOOL_LIMIT, all.iter().map(|(label, spool, _)| (label.clone(), spool.most_bytes)));
    text.family(
        &metric::SPOOL_WORKS,
        all.iter().map(|(label, spool, _)| (label.clone(), u8::from(spool.trouble.is_none()))),
    );
    let earlier = || all.iter().map(|(label, _, pages)| (label.clone(), pages.earlier()));
    text.family(&metric::SPOOL_FOUND, earlier().map(|(label, page)| (label, page.offered.records)));
    text.family(
        &metric::SPOOL_FOUND_DELIVERED,
        earlier().map(|(label, page)| (label, page.delivered.records)),
    );
    let losses = earlier().flat_map(|(label, page)| {
        Loss::ALL.map(|loss| {
            let mut label = label.clone();
            label.push(("reason", loss.as_str().to_owned()));
            (label, page.dropped[loss as usize].records)
        })
    });
    text.family(&metric::SPOOL_FOUND_DROPPED, losses);
    text.family(&metric::SPOOL_DAMAGED, all.iter().map(|(label, _, pages)| (label.clone(), pages.damaged())));
    let refused = snapshot.outlets.iter().filter(|(state, _)| state.refused > 0);
    text.family(
        &metric::SINK_REFUSED,
        refused.map(|(state, _)| (vec![("sink", state.name.to_string())], state.refused)),
    );
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floating point numbers only")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
