import { api, session } from "../api/clients";
import { useLoad } from "../lib/load";
import { dateTime } from "../lib/time";
import { ErrorNote, Loading } from "../ui/basics";

/** Which devices of the account are watching. */
export function Devices() {
  const parent = session.value?.user ?? "";
  const { value, error, reload } = useLoad(async (signal) => (await api.playback.listLeases({ parent }, { signal })).leases, [parent]);
  if (error) return <ErrorNote error={error} retry={reload} />;
  if (!value) return <Loading what="the devices" />;
  if (!value.length) return <p class="hint">No device is watching.</p>;
  return (
    <ul class="devices" aria-label="Devices that are watching">
      {value.map((lease) => (
        <li key={lease.name}>
          <strong>{lease.device || "Unnamed device"}</strong>
          <span>since {dateTime(lease.startTime)}</span>
        </li>
      ))}
    </ul>
  );
}
