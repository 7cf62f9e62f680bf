import { Edge_State, type Edge, type EdgeTier } from "kino-stubs/kino/playback/v1/edges_pb.js";
import { api } from "../api/clients";
import { useLoad } from "../lib/load";
import { bytes, dateTime } from "../lib/time";
import { Badge, ErrorNote } from "../ui/basics";

/** The edges there are, for operators: whether viewers are sent there, what each has to do, what it keeps. */
export function Edges() {
  const { value, error, reload } = useLoad(async (signal) => (await api.edges.listEdges({}, { signal })).edges, []);
  return (
    <section aria-labelledby="edges">
      <div class="section-head">
        <h2 id="edges">Edges</h2>
        <button type="button" class="button small" onClick={reload}>
          Refresh
        </button>
      </div>
      <ErrorNote error={error} retry={reload} />
      {value?.length === 0 && <p class="hint">No edge was heard of within the last day. Viewers stream from the playback service itself.</p>}
      <ul class="list">
        {value?.map((edge) => (
          <EdgeLine key={edge.name} edge={edge} />
        ))}
      </ul>
    </section>
  );
}

function EdgeLine({ edge }: { edge: Edge }) {
  return (
    <li>
      <div class="list-main">
        <strong>{edge.address}</strong>
        <span class="dim">
          {edge.streamCount} of {edge.streamCapacity} streams · {bytes(Number(edge.sentBytesPerSecond))} a second · {Math.round(edge.hitRatio * 100)} % not from the origin
        </span>
        <span class="dim">
          memory {fill(edge.memory)} · disk {fill(edge.disk)} · last heard of {dateTime(edge.reportTime)}
        </span>
      </div>
      {edge.state === Edge_State.LIVE ? (
        <Badge tone="good">Live</Badge>
      ) : edge.state === Edge_State.LEFT ? (
        <Badge tone="plain">Left</Badge>
      ) : (
        <Badge tone="bad">Silent</Badge>
      )}
    </li>
  );
}

const fill = (tier: EdgeTier | undefined): string => `${bytes(Number(tier?.usedBytes ?? 0))} of ${bytes(Number(tier?.budgetBytes ?? 0))}`;
