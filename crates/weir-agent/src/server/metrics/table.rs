//! Every metric, declared once.

use std::fmt::{self, Write as _};

/// A metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// One sentence or two; also in the reference.
    pub(super) help: &'static str,
}

/// What a metric does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Only grows, from the start of the agent on.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A sum and how many were summed.
    Summary,
    /// The same, with how many were below some bounds.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Histogram => "histogram",
        })
    }
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $help:literal;)*) => {
        $(pub(super) const $constant: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };)*
        /// All of them, in the order in which they are written.
        pub(super) const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD Gauge "weir_build_info" "Always 1; the label version is that of the agent.";
    LEDGER_PACKETS Counter "weir_ledger_packets_total" "Packets of an observation point by part: seen is every packet that passed, and equals the sum of flows, filtered, duplicate, non_ip, parse_error and overflow.";
    LEDGER_BYTES Counter "weir_ledger_bytes_total" "Bytes on the wire of an observation point, by the same parts.";
    LEDGER_BALANCED Gauge "weir_ledger_balanced" "1 if every packet and byte is accounted for at every point and up to every consumer.";
    LEDGER_UNBALANCED Counter "weir_ledger_unbalanced_total" "Readings in which the ledger of a point did not add up: 0, or there is a bug.";
    INTERFACES_ATTACHED Gauge "weir_interfaces_attached" "Interfaces that are counted.";
    INTERFACES_WANTED Gauge "weir_interfaces_wanted" "Interfaces that should be counted.";
    DRAINS Counter "weir_drains_total" "Readings of the kernel's counters.";
    DRAIN_SECONDS Counter "weir_drain_seconds_total" "Time that readings took, waiting included.";
    DRAIN_WAIT_SECONDS Counter "weir_drain_wait_seconds_total" "Time that readings waited for running kernel programs.";
    KERNEL_SLOTS_USED Gauge "weir_kernel_table_used_slots" "Slots of the kernel's table in use at the last reading.";
    KERNEL_SLOTS Gauge "weir_kernel_table_slots" "Slots of the kernel's table.";
    KERNEL_OVERFLOW_USED Gauge "weir_kernel_overflow_used_entries" "Entries of the kernel's overflow map in use at the last reading.";
    KERNEL_OVERFLOW Gauge "weir_kernel_overflow_entries" "Entries that the kernel's overflow map could hold at the last reading.";
    KERNEL_RUN_SECONDS Counter "weir_kernel_program_run_seconds_total" "Time that a kernel program ran. Only while kernel.bpf_stats_enabled is 1.";
    KERNEL_RUNS Counter "weir_kernel_program_runs_total" "How often a kernel program ran. Only while kernel.bpf_stats_enabled is 1.";
    KERNEL_DROPPED Counter "weir_kernel_dropped_packets_total" "Packets that the kernel dropped, by its own reason and where it was, since the agent counts them. A super-packet is one. Without interface: before one was chosen, or in a socket; without netns: the packet no longer said, or there were too many places.";
    KERNEL_DROPS_SKIPPED Counter "weir_kernel_dropped_packets_skipped_total" "Packets dropped while the counter was at work on the same CPU: they are in no count.";
    TABLE_FLOWS Gauge "weir_flow_table_flows" "Flows that go on.";
    TABLE_CAPACITY Gauge "weir_flow_table_capacity_flows" "Flows for which there is room.";
    TABLE_BYTES Gauge "weir_flow_table_bytes" "Memory of the flow table.";
    FOLDED_PACKETS Counter "weir_folded_packets_total" "Packets of flows for which there was no room: they are in coarser rows.";
    FOLDED_BYTES Counter "weir_folded_bytes_total" "Bytes of flows for which there was no room.";
    MISSES Counter "weir_enrichment_misses_total" "Ends of records that got no name: what was looked for (label what), and why there is none (label reason).";
    LOST Counter "weir_enrichment_lost_total" "What records could have said and do not, because it was lost: of what (label what), and why (label reason). dns: ring_full and unreadable are packets in the kernel; partial, malformed, other_operation and unasked are messages that tell nothing; lookups_full, flows_full, names_full and named_flows_full are tables without room; no_record are flows that a filter keeps away. tcp_quality: end_not_read and no_room are sockets.";
    DNS_PACKETS Counter "weir_dns_packets_total" "Packets at DNS ports that could hold a message: the sum of written (handed over), lost (no room in the ring) and unreadable (label outcome). Only if DNS messages are read, as all of weir_dns.";
    DNS_MESSAGES Counter "weir_dns_messages_total" "DNS messages heard, once for each interface that they passed.";
    DNS_CUT Counter "weir_dns_cut_messages_total" "Of these, longer than what was copied: fragments, long segments. Answers behind the cut are not known.";
    DNS_QUERIES Counter "weir_dns_queries_total" "DNS lookups that got a response, by its code and by the role of the interface where the query was seen first. A lookup counts once, at however many interfaces it passes; the two sides of an address translation are two lookups.";
    DNS_UNANSWERED Counter "weir_dns_unanswered_total" "DNS lookups that got no response for five seconds, by role.";
    DNS_DURATION Histogram "weir_dns_lookup_duration_seconds" "Time from a query to its response, from where the query was seen first to where the response was, by role.";
    DNS_PENDING Gauge "weir_dns_pending_lookups" "DNS lookups that wait for a response, or had one in the last five seconds.";
    DNS_NAMES Gauge "weir_dns_names" "Names of addresses that are known from responses, those of the last minutes included; each counts once for each client.";
    KUBERNETES_PODS Gauge "weir_kubernetes_pods" "Pods that are known. Only with a cluster.";
    KUBERNETES_ADDRESSES Gauge "weir_kubernetes_addresses" "Addresses of pods, nodes and services that are known. Only with a cluster.";
    KUBERNETES_CURRENT Gauge "weir_kubernetes_resource_current" "1 if the list of a resource is complete and changes are heard of. Only with a cluster.";
    KUBERNETES_LISTS Counter "weir_kubernetes_lists_total" "How often the whole list of a resource was read. Only with a cluster.";
    TICKS Counter "weir_intervals_total" "Intervals handed on.";
    RECORDS Counter "weir_records_total" "Records that left the flow table.";
    DISMISSED Counter "weir_dismissed_records_total" "Records that the filter of the agent kept away.";
    OFFERED Counter "weir_consumer_offered_records_total" "Records meant for a consumer: the sum of delivered, filtered, dropped, spooled and waiting.";
    DELIVERED Counter "weir_consumer_delivered_records_total" "Records that a consumer has.";
    FILTERED Counter "weir_consumer_filtered_records_total" "Records that the filter of a consumer kept away.";
    DROPPED Counter "weir_dropped_records_total" "Records lost on the way to a consumer (the stage), by reason: queue_full (too much waited), rejected (it refused for good), stopped (the agent or the sink ended first), spool_full (the disk had no more room for them), spool_damaged (the disk gave back something else).";
    DROPPED_PACKETS Counter "weir_dropped_packets_total" "Packets in records that were lost, by stage and reason. Roles are added up, so a packet may count more than once.";
    WAITING Gauge "weir_consumer_waiting_records" "Records that wait for a consumer in memory.";
    QUEUE Gauge "weir_consumer_queue_records" "Most records that may wait for a consumer in memory.";
    BEHIND Gauge "weir_consumer_behind_seconds" "Time between the last interval and the last one that a consumer has.";
    ATTEMPTS Counter "weir_consumer_attempts_total" "Attempts to deliver.";
    FAILURES Counter "weir_consumer_failures_total" "Attempts to deliver that failed.";
    SPOOL_RECORDS Gauge "weir_sink_spool_records" "Records that wait on disk for a sink, those that an earlier run left included.";
    SPOOL_BYTES Gauge "weir_sink_spool_bytes" "Bytes that wait on disk for a sink.";
    SPOOL_LIMIT Gauge "weir_sink_spool_limit_bytes" "Most bytes that may wait on disk for a sink.";
    SPOOL_WORKS Gauge "weir_sink_spool_works" "0 while the disk takes nothing; new records then wait in memory.";
    SPOOL_FOUND Counter "weir_sink_earlier_found_records_total" "Records that an earlier run left in the spool of a sink: the sum of those delivered, dropped and still there.";
    SPOOL_FOUND_DELIVERED Counter "weir_sink_earlier_delivered_records_total" "Records of an earlier run that a sink has by now.";
    SPOOL_FOUND_DROPPED Counter "weir_sink_earlier_dropped_records_total" "Records of an earlier run that were lost, by reason.";
    SPOOL_DAMAGED Counter "weir_sink_spool_damaged_places_total" "Places in spool files of an earlier run that made no sense: nobody knows what was there.";
    SINK_REFUSED Counter "weir_sink_refused_records_total" "Records that a sink took and then refused without saying which; they count as delivered.";
    LIVE_FRAMES Gauge "weir_live_frames" "Intervals that clients of the live view can go back.";
    LIVE_BYTES Gauge "weir_live_bytes" "Memory of these.";
    LIVE_FOLLOWERS Gauge "weir_live_followers" "Clients that follow the live view.";
    REFUSED Counter "weir_http_refused_total" "Requests that were refused, by reason: method, host, origin, token, busy.";
    EDGES Gauge "weir_edges" "Edges with series of their own. Only with a sink of type prometheus, as all that begins with network_flow.";
    EDGES_RETIRED Counter "weir_edges_retired_total" "Edges that lost their series: without traffic for long, or far smaller than one that had none.";
    FLOW_BYTES Counter "network_flow_bytes_total" "Bytes on the wire between two workloads, by direction: forward is from source to destination. Each flow counts at one interface of a role (flow_observation); roles are not to be added up.";
    FLOW_PACKETS Counter "network_flow_packets_total" "Frames on the wire between two workloads, by direction.";
    FLOW_RETRANSMITS Counter "network_flow_retransmits_total" "TCP segments sent again by sockets of this machine, by direction.";
    FLOW_CONNECTIONS Counter "network_flow_connections_total" "Flows by state: opened (began), closed (ended), and of the ended ones those that failed: refused, unanswered, reset.";
    FLOW_RTT Summary "network_flow_rtt_seconds" "Round-trip times that TCP sockets of this machine told.";
    CALLS Counter "traces_service_graph_request_total" "Calls between two services. Made of calls and never of flows: without a source of calls there are none.";
    CALLS_FAILED Counter "traces_service_graph_request_failed_total" "Calls between two services that failed. Made of calls and never of flows.";
    CALL_SECONDS Histogram "traces_service_graph_request_server_seconds" "Time that servers took for calls. Made of calls and never of flows.";
    CPU Counter "process_cpu_seconds_total" "Processor time of the agent, user and system.";
    RESIDENT Gauge "process_resident_memory_bytes" "Memory of the agent in RAM.";
    DESCRIPTORS Gauge "process_open_fds" "Open descriptors of the agent.";
    STARTED Gauge "process_start_time_seconds" "When the agent started, seconds since 1970.";
}

/// The reference page.
pub(super) fn page() -> String {
    let mut page = String::from(include_str!("reference_head.md"));
    page.push_str("\n| metric | type | what it says |\n|---|---|---|\n");
    for Metric { name, kind, help } in ALL {
        writeln!(page, "| `{name}` | {kind} | {help} |").expect("a string takes any text");
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_metrics_have_one_name() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
