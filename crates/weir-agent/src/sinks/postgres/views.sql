-- The service map, in the shape of Grafana's node graph panel: of a span of time as functions, of the last quarter of an hour
-- as views. An edge counts at one role, the first at which it was seen. Both of its nodes may have counted it, so of
-- what was seen near its source and near its destination the larger is told.
DROP VIEW IF EXISTS weir_nodes, weir_edges;
DROP FUNCTION IF EXISTS weir_nodes, weir_edges, weir_service_map;

CREATE FUNCTION weir_service_map(since timestamptz, until timestamptz) RETURNS TABLE (
    source_kind text, source_namespace text, source_name text,
    destination_kind text, destination_namespace text, destination_name text,
    transport text, port integer, flows bigint, failed bigint, bytes bigint, packets bigint, reverse_bytes bigint,
    reverse_packets bigint, retransmits bigint, rtt_seconds double precision
) LANGUAGE sql STABLE AS $$
    WITH seen AS (
        SELECT e.source_kind, e.source_namespace, e.source_name, e.destination_kind, e.destination_namespace,
            e.destination_name, e.transport, e.port, e.direction,
            array_position(ARRAY['pod-edge', 'uplink', 'tunnel', 'loopback', 'bridge', 'other'], e.role) AS rank,
            sum(e.flows) AS flows, sum(e.failed) AS failed, sum(e.bytes) AS bytes, sum(e.packets) AS packets,
            sum(e.reverse_bytes) AS reverse_bytes, sum(e.reverse_packets) AS reverse_packets,
            sum(e.retransmits) AS retransmits, sum(e.rtt_seconds) AS rtt_seconds, sum(e.rtt_records) AS rtt_records
        FROM edge e WHERE e.time >= since AND e.time < until
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
    ), ranked AS (
        SELECT *, min(rank) OVER (PARTITION BY s.source_kind, s.source_namespace, s.source_name, s.destination_kind,
            s.destination_namespace, s.destination_name, s.transport, s.port) AS first
        FROM seen s
    )
    SELECT r.source_kind, r.source_namespace, r.source_name, r.destination_kind, r.destination_namespace,
        r.destination_name, r.transport, r.port, max(r.flows)::bigint, max(r.failed)::bigint, max(r.bytes)::bigint,
        max(r.packets)::bigint, max(r.reverse_bytes)::bigint, max(r.reverse_packets)::bigint,
        max(r.retransmits)::bigint, sum(r.rtt_seconds) / nullif(sum(r.rtt_records), 0)::double precision
    FROM ranked r WHERE r.rank = r.first
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
$$;

CREATE FUNCTION weir_edges(since timestamptz, until timestamptz) RETURNS TABLE (
    id text, source text, target text, mainstat double precision, secondarystat double precision,
    thickness double precision, color text, detail__ports text, detail__bytes bigint, detail__connections bigint,
    detail__failed bigint, detail__retransmits bigint, detail__rtt_ms double precision
) LANGUAGE sql STABLE AS $$
    SELECT md5(m.source || ' > ' || m.target), m.source, m.target,
        (sum(m.bytes + m.reverse_bytes) / m.seconds)::double precision,
        (sum(m.flows) / m.seconds)::double precision,
        round(least(8, 1 + greatest(0, log(1 + sum(m.bytes + m.reverse_bytes)) - 5)), 1)::double precision,
        CASE WHEN sum(m.failed) > 0 THEN '#f2495c'
            WHEN sum(m.retransmits) > 0.01 * sum(m.packets + m.reverse_packets) THEN '#ff9830'
            ELSE '#8e8e8e' END,
        string_agg(DISTINCT m.transport || CASE WHEN m.port > 0 THEN '/' || m.port ELSE '' END, ', '),
        sum(m.bytes + m.reverse_bytes)::bigint, sum(m.flows)::bigint, sum(m.failed)::bigint,
        sum(m.retransmits)::bigint, 1000 * avg(m.rtt_seconds)
    FROM (
        SELECT *, concat_ws('/', source_kind, nullif(source_namespace, ''), source_name) AS source,
            concat_ws('/', destination_kind, nullif(destination_namespace, ''), destination_name) AS target,
            greatest(extract(epoch FROM until - since), 1) AS seconds
        FROM weir_service_map(since, until)
    ) m
    GROUP BY m.source, m.target, m.seconds
$$;

CREATE FUNCTION weir_nodes(since timestamptz, until timestamptz) RETURNS TABLE (
    id text, title text, subtitle text, mainstat double precision, secondarystat double precision,
    arc__ok double precision, arc__failed double precision, color text, detail__kind text, detail__bytes_in bigint,
    detail__bytes_out bigint, detail__connections_in bigint, detail__failed_in bigint
) LANGUAGE sql STABLE AS $$
    SELECT concat_ws('/', n.kind, nullif(n.namespace, ''), n.name), n.name, coalesce(nullif(n.namespace, ''), n.kind),
        (sum(n.received) / n.seconds)::double precision, (sum(n.sent) / n.seconds)::double precision,
        1 - least(1, coalesce(sum(n.failed) / nullif(sum(n.flows), 0), 0))::double precision,
        least(1, coalesce(sum(n.failed) / nullif(sum(n.flows), 0), 0))::double precision,
        CASE WHEN sum(n.failed) > 0 THEN '#f2495c' ELSE '#73bf69' END,
        n.kind, sum(n.received)::bigint, sum(n.sent)::bigint, sum(n.flows)::bigint, sum(n.failed)::bigint
    FROM (
        SELECT source_kind AS kind, source_namespace AS namespace, source_name AS name, reverse_bytes AS received,
            bytes AS sent, 0::bigint AS flows, 0::bigint AS failed,
            greatest(extract(epoch FROM until - since), 1) AS seconds
        FROM weir_service_map(since, until)
        UNION ALL
        SELECT destination_kind, destination_namespace, destination_name, bytes, reverse_bytes, flows, failed,
            greatest(extract(epoch FROM until - since), 1)
        FROM weir_service_map(since, until)
    ) n
    GROUP BY n.kind, n.namespace, n.name, n.seconds
$$;

CREATE VIEW weir_edges AS SELECT * FROM weir_edges(now() - interval '15 minutes', now());
CREATE VIEW weir_nodes AS SELECT * FROM weir_nodes(now() - interval '15 minutes', now());
