import { isWatched, setWatched } from "../lib/watchlist";
import { useAct } from "../lib/load";
import { announce, ErrorNote } from "./basics";
import { Icon } from "./icon";

/** Puts a title or series on the list of the profile, or takes it off. */
export function WatchButton({ subject }: { subject: string }) {
  const { busy, error, run } = useAct();
  const on = isWatched(subject);
  const toggle = () => void run(() => setWatched(subject, !on)).then((done) => done && announce(on ? "Taken off my list" : "On my list"));
  return (
    <>
      <button type="button" class="button small" aria-pressed={on} disabled={busy} onClick={toggle}>
        <Icon name={on ? "check" : "plus"} size={18} /> My list
      </button>
      <ErrorNote error={error} />
    </>
  );
}
