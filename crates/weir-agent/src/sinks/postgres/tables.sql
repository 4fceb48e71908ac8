-- The version of all this; one row.
CREATE TABLE IF NOT EXISTS weir_schema (version integer NOT NULL);

-- Batches that are in the tables, so that none gets in twice.
CREATE TABLE IF NOT EXISTS weir_batch (
    id uuid PRIMARY KEY,
    node text NOT NULL,
    time timestamptz NOT NULL DEFAULT now()
);

-- Flows. The other columns, one for each field, are added afterwards.
CREATE TABLE IF NOT EXISTS flow (
    time timestamptz NOT NULL,
    node text NOT NULL,
    again boolean NOT NULL
) PARTITION BY RANGE (time);
CREATE INDEX IF NOT EXISTS flow_time ON flow USING brin (time) WITH (pages_per_range = 32, autosummarize = on);
COMMENT ON COLUMN flow.time IS 'When the record was made, by the clock of the node.';
COMMENT ON COLUMN flow.node IS 'The node that counted.';
COMMENT ON COLUMN flow.again IS 'Whether the flow was seen at another interface of the same role too, and counts there.';

-- Sums of a minute.
CREATE TABLE IF NOT EXISTS edge (
    time timestamptz NOT NULL,
    node text NOT NULL,
    role text NOT NULL,
    direction text NOT NULL,
    source_kind text NOT NULL,
    source_namespace text NOT NULL,
    source_name text NOT NULL,
    destination_kind text NOT NULL,
    destination_namespace text NOT NULL,
    destination_name text NOT NULL,
    transport text NOT NULL,
    port integer NOT NULL,
    records bigint NOT NULL,
    flows bigint NOT NULL,
    failed bigint NOT NULL,
    bytes bigint NOT NULL,
    packets bigint NOT NULL,
    reverse_bytes bigint NOT NULL,
    reverse_packets bigint NOT NULL,
    retransmits bigint NOT NULL,
    rtt_seconds double precision NOT NULL,
    rtt_records bigint NOT NULL,
    PRIMARY KEY (time, node, role, direction, source_kind, source_namespace, source_name, destination_kind,
        destination_namespace, destination_name, transport, port)
) PARTITION BY RANGE (time);
COMMENT ON COLUMN edge.flows IS 'Flows that began.';
COMMENT ON COLUMN edge.failed IS 'Flows that were over and had failed.';
COMMENT ON COLUMN edge.port IS 'Port at the destination; 0 where there is none.';
COMMENT ON COLUMN edge.rtt_seconds IS 'Sum of the round-trip times of rtt_records records.';

-- Spans, with what is known of the pod that they are about.
CREATE TABLE IF NOT EXISTS otel_span (
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    trace_id bytea NOT NULL,
    span_id bytea NOT NULL,
    parent_span_id bytea,
    trace_state text,
    name text NOT NULL,
    kind smallint NOT NULL,
    status_code smallint NOT NULL,
    status_message text,
    service_name text,
    k8s_namespace_name text,
    k8s_pod_name text,
    k8s_pod_uid text,
    k8s_owner_kind text,
    k8s_owner_name text,
    k8s_node_name text,
    k8s_container_name text,
    resource jsonb NOT NULL,
    scope jsonb NOT NULL,
    attributes jsonb NOT NULL,
    events jsonb NOT NULL,
    links jsonb NOT NULL
) PARTITION BY RANGE (start_time);
CREATE INDEX IF NOT EXISTS otel_span_start_time ON otel_span USING brin (start_time) WITH (autosummarize = on);
CREATE INDEX IF NOT EXISTS otel_span_trace_id ON otel_span (trace_id);
